#include "cli/console.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace nodeleak::cli {
namespace {

// 0, or the error's number.
int Write(FILE* stream, absl::string_view text) {
  errno = 0;
  return fwrite(text.data(), 1, text.size(), stream) == text.size() && fflush(stream) == 0 ? 0 : errno;
}

}  // namespace

absl::Status WriteToStdout(absl::string_view text) {
  const int error = Write(stdout, text);
  return error == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, "cannot write to stdout");
}

bool WriteToStderr(absl::string_view text) {
  fflush(stdout);
  const int error = Write(stderr, text);
  return error == 0 || error == EPIPE;
}

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
