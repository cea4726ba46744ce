#include "preload/base/writing_syscall.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

// The kernel sends it to the thread that writes, and there it is taken back.
long RawWritingSyscall(long number, long a, long b, long c, long d) {
  const uint64_t refusal = uint64_t{1} << (SIGXFSZ - 1);
  const long only = reinterpret_cast<long>(&refusal);
  uint64_t before = 0;
  const long blocked = RawSyscall(SYS_rt_sigprocmask, SIG_BLOCK, only, reinterpret_cast<long>(&before), sizeof before);
  const long result = RawSyscall(number, a, b, c, d);
  if (blocked != 0) return result;
  const timespec no_wait = {};
  if (result == -EFBIG) RawSyscall(SYS_rt_sigtimedwait, only, 0, reinterpret_cast<long>(&no_wait), sizeof refusal);
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&before), 0, sizeof before);
  return result;
}

}  // namespace nodeleak::preload
