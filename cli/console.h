// Outside. What a person at the terminal sees of us. stdout belongs to the command that is run, so we speak on stderr.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nodeleak::cli {

// "nodeleak: <sentence>" on stderr.
void Say(absl::string_view sentence);

// All of it, now: what stdio keeps may be lost without a word.
absl::Status WriteToStdout(absl::string_view text);
// False: it cannot be written. There is nowhere to say why. A reader that went away did not want more.
bool WriteToStderr(absl::string_view text);

// A terminal that understands more than characters.
bool IsTerminal(int fd);

// Colour on this file descriptor: a terminal, not a dumb one, and NO_COLOR is not set (no-color.org).
bool UseColor(int fd);

// A line that is there while something takes long, and gone afterwards. Only on a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(absl::string_view text);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  bool shown_;
};

}  // namespace nodeleak::cli
