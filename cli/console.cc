#include "cli/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace nodeleak::cli {
namespace {

void WriteToStderr(const std::string& text) {
  fflush(stdout);
  fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace

bool IsTerminal(int fd) {
  const char* terminal = getenv("TERM");
  return isatty(fd) != 0 && terminal != nullptr && absl::string_view(terminal) != "dumb";
}

void Say(absl::string_view sentence) { WriteToStderr(absl::StrCat("nodeleak: ", sentence, "\n")); }

bool UseColor(int fd) {
  const char* no_color = getenv("NO_COLOR");
  return IsTerminal(fd) && (no_color == nullptr || no_color[0] == '\0');
}

ProgressLine::ProgressLine(absl::string_view text) : shown_(IsTerminal(STDERR_FILENO)) {
  if (shown_) WriteToStderr(absl::StrCat("nodeleak: ", text, "..."));
}

ProgressLine::~ProgressLine() {
  if (shown_) WriteToStderr("\r\033[K");
}

}  // namespace nodeleak::cli
