// Outside. A consistent copy of a recording, also of one that is being written.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace nodeleak::recording {

// Writes `to` with mode 0600, beside it first and then renamed, so that it is either whole or not there. Refuses to go
// through a symbolic link and to replace a file that is not a recording.
absl::Status CopyRecording(const std::string& from, const std::string& to);

}  // namespace nodeleak::recording
