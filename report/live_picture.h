// Outside node. A memory picture of a running process, taken from here: nothing is asked of the process, so it works
// when it is busy, stopped, or not recorded at all.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "recording/recording.h"

namespace nodeleak::report {

// `recording` is of that process, just read. Errors say why the process cannot be looked at.
absl::StatusOr<recording::PictureInfo> TakePictureNow(uint32_t pid, const recording::Recording& recording);

// The same of a process that nobody records: what the kernel and glibc's own heaps tell. As a recording, for
// BuildReport.
absl::StatusOr<recording::Recording> PictureUnrecorded(uint32_t pid);

}  // namespace nodeleak::report
