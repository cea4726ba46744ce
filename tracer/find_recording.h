// Outside. Which recording a running process writes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace nodeleak::tracer {

// Its path, as this process can open it: also when the other is in another mount namespace.
absl::StatusOr<std::string> FindRecordingOfProcess(uint32_t pid);

}  // namespace nodeleak::tracer
