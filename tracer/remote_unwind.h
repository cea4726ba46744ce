// Outside. The stack of a stopped thread, by the unwind tables that lie in the process's own memory: no file of it is
// opened, so it works in another mount namespace, too.
#pragma once

#include <stdint.h>
#include <sys/user.h>

#include <vector>

#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

struct RemoteFrame {
  uint64_t pc;        // where it is, or will return to
  uint64_t function;  // where that begins; 0: there is no table for it
};

// Innermost first, as far as that can be told and 128 at most. In code without tables (JavaScript) frame pointers are
// followed.
std::vector<RemoteFrame> UnwindStack(const RemoteMemory& memory, const RemoteObjects& objects,
                                     const user_regs_struct& registers);

}  // namespace nodeleak::tracer
