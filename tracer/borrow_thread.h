// Outside. Finds a thread of another process that can be borrowed for a call: one that sleeps in the kernel or runs
// compiled JavaScript, holds no lock that matters and has room on its stack. Only that one is stopped; all others run
// on, so no lock that one of them holds can block what is called.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <chrono>
#include <vector>

#include "absl/status/statusor.h"
#include "tracer/remote_elf.h"
#include "tracer/traced_thread.h"
#include "tracer/unsafe_code.h"

namespace nodeleak::tracer {

class Borrow {
 public:
  // Any thread that sleeps; after two thirds of the patience also one that runs.
  static Borrow Idle() { return Borrow(0); }
  // This one, in its event loop's poll.
  static Borrow InLoop(pid_t thread) { return Borrow(thread); }
  // This one, in Atomics.wait: that builtin is on its stack. V8 has let go of its own lock there, and runs what it was
  // interrupted for.
  static Borrow InWait(pid_t thread, uint64_t builtin) { return Borrow(thread, builtin); }

  // This one, while it runs code that V8 has compiled: it holds no lock of V8's or libc's there.
  static Borrow InCompiledCode(pid_t thread) { return Borrow(thread, 0, true); }

  bool in_loop() const { return thread_ != 0 && wait_builtin_ == 0 && !in_compiled_code_; }
  bool in_wait() const { return wait_builtin_ != 0; }
  bool in_compiled_code() const { return in_compiled_code_; }
  uint64_t wait_builtin() const { return wait_builtin_; }
  bool Allows(pid_t thread) const { return thread_ == 0 || thread == thread_; }

 private:
  explicit Borrow(pid_t thread, uint64_t builtin = 0, bool in_compiled_code = false)
      : thread_(thread), wait_builtin_(builtin), in_compiled_code_(in_compiled_code) {}
  pid_t thread_;
  uint64_t wait_builtin_;
  bool in_compiled_code_;
};

// Those that sleep in the poll of an event loop just now, or of something like one.
std::vector<pid_t> ThreadsInLoop(pid_t pid);
// Those that run, or wait for a processor.
std::vector<pid_t> ThreadsThatCompute(pid_t pid);
// Those that wait for a lock or a condition, of JavaScript or not.
std::vector<pid_t> ThreadsInFutex(pid_t pid);

struct BorrowedThread {
  TracedThread thread;  // stopped
  user_regs_struct registers;
};

// Unavailable: none within `patience`; says what was in the way.
absl::StatusOr<BorrowedThread> BorrowThread(const RemoteMemory& memory, const RemoteObjects& objects,
                                            const UnsafeCode& unsafe, Borrow which, std::chrono::milliseconds patience);

}  // namespace nodeleak::tracer
