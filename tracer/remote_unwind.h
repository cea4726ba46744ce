// Outside. The stack of a stopped thread, by the unwind tables that lie in the process's own memory: no file of it is
// opened, so it works in another mount namespace, too.
#pragma once

#include <stdint.h>
#include <sys/user.h>

#include <vector>

#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

// Where it is and where it will return to, innermost first, as far as that can be told and 128 at most. In code without
// tables (JavaScript) frame pointers are followed.
std::vector<uint64_t> UnwindStack(const RemoteMemory& memory, const RemoteObjects& objects,
                                  const user_regs_struct& registers);

}  // namespace nodeleak::tracer
