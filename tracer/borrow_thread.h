// Outside. Finds a thread of another process that can be borrowed for a call: one that sleeps in the kernel, holds no
// lock that matters and has room on its stack. Only that one is stopped; all others run on, so no lock that one of them
// holds can block what is called.
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

  bool in_loop() const { return thread_ != 0; }
  bool Allows(pid_t thread) const { return thread_ == 0 || thread == thread_; }

 private:
  explicit Borrow(pid_t thread) : thread_(thread) {}
  pid_t thread_;
};

// Those that sleep in the poll of an event loop just now, or of something like one.
std::vector<pid_t> ThreadsInLoop(pid_t pid);

struct BorrowedThread {
  TracedThread thread;  // stopped
  user_regs_struct registers;
};

// Unavailable: none within `patience`; says what was in the way.
absl::StatusOr<BorrowedThread> BorrowThread(const RemoteMemory& memory, const RemoteObjects& objects,
                                            const UnsafeCode& unsafe, Borrow which, std::chrono::milliseconds patience);

}  // namespace nodeleak::tracer
