// Outside. Which recording a running process writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nodeleak::tracer {

// What the user named: a process, unless there is a file of that name.
std::optional<uint32_t> AsPid(const std::string& operand);

// The files that a process has mapped shared and writable, each once, as it sees them. None: it is not there, or
// another user's.
std::optional<std::vector<std::string>> SharedFilesOf(uint32_t pid);

// Its path, as this process can open it: also when the other is in another mount namespace.
absl::StatusOr<std::string> FindRecordingOfProcess(uint32_t pid);

}  // namespace nodeleak::tracer
