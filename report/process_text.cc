#include "report/process_text.h"

#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "report/absl_view.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {

std::string SignalName(int signal) {
  const char* abbreviation = sigabbrev_np(signal);
  return abbreviation != nullptr ? absl::StrCat("SIG", abbreviation) : absl::StrCat("signal ", signal);
}

std::string EndingText(const ProcessInfo& process) {
  switch (process.ending) {
    case Ending::kExit:
      return process.exit_code.has_value() ? absl::StrCat("exited with code ", *process.exit_code) : "exited";
    case Ending::kSignal:
      return process.signal.has_value() ? absl::StrCat("ended by ", SignalName(*process.signal)) : "ended by a signal";
    case Ending::kKilled:
      return process.signal.has_value() ? absl::StrCat("killed by ", SignalName(*process.signal)) : "killed or crashed";
    case Ending::kRunning:
      return process.is_copy ? "still running when it was copied" : "still running";
    case Ending::kDetached:
      return "still running, detached";
    case Ending::kExec:
      return "became another program (exec)";
  }
  return "";
}

std::string CommandText(const ProcessInfo& process) {
  if (process.command.empty()) return Printable(process.executable.empty() ? "(unknown command)" : process.executable);
  std::string text;
  for (const std::string& argument : process.command) {
    const bool first = text.empty();
    const size_t slash = first ? argument.rfind('/') : std::string::npos;
    absl::StrAppend(&text, first ? "" : " ",
                    slash == std::string::npos || slash + 1 == argument.size() ? argument : argument.substr(slash + 1));
  }
  return Printable(text);
}

void WriteTitle(std::string_view before, const ProcessInfo& process, TextCanvas* out) {
  const std::string pid = absl::StrCat("  (pid ", process.pid, ")");
  const std::string text = absl::StrCat(View(before), CommandText(process));
  out->Line(out->Bold(FitMiddle(text, out->columns() - static_cast<int>(pid.size()))) + pid);
}

}  // namespace nodeleak::report
