// Both worlds. The mappings of a process as the kernel shows them (/proc/PID/smaps), in the order of their addresses.
#pragma once

#include <stdint.h>

#include "memory/system.h"

namespace nodeleak::memory {

enum class AreaKind : uint32_t {
  kAnonymous,
  kBreak,  // "[heap]": the program break, malloc's main arena
  kMainStack,
  kFile,    // code, data of a file even when it was written to, mapped files
  kShared,  // memfd, /dev/shm, SysV, anonymous shared memory
  kKernel,  // vdso...
};

struct Area {
  uint64_t start, end;
  uint64_t resident, swapped;  // bytes
  AreaKind kind;
  uint32_t writable;
  uint64_t inode;
  uint64_t bitmap;  // residency.h: first word, or one of its marks
};

// False when the file cannot be read; areas that do not fit into memory are left out.
bool ReadAreas(const System& system, PageArray<Area>* areas);

// Bytes, from /proc/PID/status: VmPTE, VmSwap...; 0 when it is not there.
struct StatusNumbers {
  uint64_t page_tables, swapped, peak_resident;
};
StatusNumbers ReadStatus(const System& system);

}  // namespace nodeleak::memory
