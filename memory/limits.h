// Both worlds. The memory limit that a process runs into first: of its control groups, v1 or v2, up the hierarchy as
// far as this mount namespace shows it (in a container: the container's).
#pragma once

#include <stdint.h>

#include "memory/system.h"

namespace nodeleak::memory {

struct MemoryLimit {
  uint64_t bytes;       // 0: there is none, or it cannot be read
  uint64_t used_bytes;  // by everything in that group, file cache too
  bool throttles;       // v2's memory.high: what goes beyond is slowed down, not killed
};

// `system` is of the process; `own` of ourselves, whose mounts are looked through.
MemoryLimit ReadMemoryLimit(const System& system, const System& own);

}  // namespace nodeleak::memory
