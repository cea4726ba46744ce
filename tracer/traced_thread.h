// Outside. One thread of another process that is traced (PTRACE_SEIZE). Whatever happens here, the thread is let go by
// the destructor; when this process dies, the kernel does the same. PTRACE_O_EXITKILL is never set.
//
// All calls for one thread come from the thread of ours that seized it.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <chrono>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nodeleak::tracer {

class TracedThread {
 public:
  // The thread goes on running. NotFound: it has ended.
  static absl::StatusOr<TracedThread> Seize(pid_t thread);

  TracedThread(TracedThread&& other) noexcept;
  TracedThread& operator=(TracedThread&& other) noexcept;
  ~TracedThread();

  pid_t id() const { return thread_; }

  // Asks it to stop; AwaitStop waits for that, LookForStop does not (nullopt: not yet).
  void Interrupt() const;
  enum class Stop { kStopped, kEnded, kTimeout };
  Stop AwaitStop(std::chrono::microseconds patience);
  std::optional<Stop> LookForStop();
  bool stopped() const { return stopped_; }
  // A signal that was being delivered at that moment, 0: none. It is delivered when the thread is let go.
  int pending_signal() const { return pending_signal_; }

  absl::StatusOr<user_regs_struct> ReadRegisters() const;
  absl::Status WriteRegisters(const user_regs_struct& registers) const;

  // Lets it run, still traced, delivering `signal`.
  absl::Status Continue(int signal);
  // What it stopped for since, without waiting. kSignal: `signal` is about to be delivered; Continue decides.
  enum class Event { kNone, kSignal, kGroupStop, kOther, kEnded };
  Event Poll(int* signal);
  void StayStopped() const;  // PTRACE_LISTEN: a job-control stop goes on

  void LetGo();  // what the destructor does: waits for the thread to stop, at most half a second
  // For a thread that was interrupted and has not stopped (it sits in vfork, or waits for a disk): it would stop one
  // day with nobody there. It is put on a list; LetGoOfLatecomers lets go of those that have stopped since. Call that
  // often.
  void LetGoLater();
  static void LetGoOfLatecomers();

 private:
  explicit TracedThread(pid_t thread) : thread_(thread) {}
  void NoteStop(int status);

  pid_t thread_ = 0;  // 0: let go
  bool stopped_ = false;
  int pending_signal_ = 0;
};

}  // namespace nodeleak::tracer
