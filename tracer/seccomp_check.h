// Outside. Whether the seccomp filters of a process let the recorder do its work in it. A filter that ends the process
// for one of its system calls must be known before the first of them is made.
#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"

namespace nodeleak::tracer {

// Refuses where a filter would end the process, and where that cannot be told unless `trust` says that it does not.
// Threads are stopped for some microseconds each, to read the filters (which takes CAP_SYS_ADMIN). Where they cannot be
// read, but this process lives under as many of its own (in the same container), a child of ours tries the calls.
absl::Status CheckSeccompFilters(pid_t pid, bool trust);

// The system calls that the recorder makes in a process that was attached to, and that loading it there takes. A name
// may come twice.
struct RecorderCall {
  const char* name;
  long number;
};
std::vector<RecorderCall> CallsOfRecorder();

}  // namespace nodeleak::tracer
