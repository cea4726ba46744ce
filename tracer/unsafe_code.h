// Outside. Where a thread must not be borrowed: inside the allocator, the dynamic linker, or our own recorder, whose
// locks it may hold, while what we would call takes them again.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <string>
#include <vector>

#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/shim_in_process.h"

namespace nodeleak::tracer {

class UnsafeCode {
 public:
  // `shim` may be nullptr; `objects` must live on.
  UnsafeCode(const RemoteObjects& objects, const ShimInProcess* shim);

  // Why the stopped thread must not be borrowed; empty: it may. First every word of the inner stack is looked at: where
  // none points into unsafe code, none of it is being run. A word that does may be left over from an earlier call; then
  // the stack is unwound. Where that is not possible, the thread is left alone.
  std::string Find(const RemoteMemory& memory, const user_regs_struct& registers) const;

 private:
  struct Part {
    RemoteRange range;
    const char* what;
  };
  const Part* PartOf(uint64_t address) const;

  const RemoteObjects* objects_;
  std::vector<Part> parts_;
};

}  // namespace nodeleak::tracer
