// Outside. All threads of a process, stopped at the same time. The destructor lets every one of them go. Nothing is run
// in the process while it is stopped, and nothing in here waits for it: a thread may hold any lock.
#pragma once

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tracer/traced_thread.h"

namespace nodeleak::tracer {

struct StoppedThread {
  TracedThread thread;
  user_regs_struct registers;
};

class StoppedWorld {
 public:
  // Unavailable: those that had stopped would have stood still for longer than `limit` (another one waits for a
  // processor, for a vfork child, or for a disk); all run again and nothing has changed: try again. `in_vain`: for how
  // long they stood still. Other errors are final.
  static absl::StatusOr<StoppedWorld> Stop(pid_t pid, std::chrono::milliseconds limit,
                                           std::chrono::microseconds* in_vain);

  StoppedWorld(StoppedWorld&&) = default;
  StoppedWorld& operator=(StoppedWorld&&) = delete;
  ~StoppedWorld();

  std::vector<StoppedThread>& threads() { return threads_; }

  // Lets all go; returns how long the first that had stopped stood still.
  std::chrono::microseconds Release();

 private:
  StoppedWorld() = default;
  enum class Which { kThatCompute, kAll };
  absl::Status StopAll(pid_t pid, std::chrono::milliseconds limit);
  absl::Status StopNewThreads(pid_t pid, Which which, std::chrono::milliseconds limit, size_t* found);
  absl::Status AwaitStops(std::vector<TracedThread> fresh, std::chrono::milliseconds limit, size_t* found);

  // Raises our own scheduling class, and puts it back.
  class Urgency {
   public:
    Urgency();
    Urgency(Urgency&& other) noexcept : raised_(std::exchange(other.raised_, false)), before_(other.before_) {}
    ~Urgency() { PutBack(); }
    void PutBack();

   private:
    bool raised_;
    int before_;
  };

  Urgency urgency_;
  std::optional<std::chrono::steady_clock::time_point> first_stop_;  // not later than it was
  std::vector<StoppedThread> threads_;
};

}  // namespace nodeleak::tracer
