// Outside. A process with the shim in it: what attaching and detaching have in common.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tracer/attach_preflight.h"
#include "tracer/hook_patches.h"
#include "tracer/remote_call.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/shim_in_process.h"

namespace nodeleak::tracer {

class AttachedProcess {
 public:
  // Looks only. Holds the process for us: a second nodeleak that comes meanwhile is told so.
  static absl::StatusOr<std::unique_ptr<AttachedProcess>> Open(const AttachTarget& target);

  const AttachTarget& target() const { return target_; }
  const RemoteMemory& memory() const { return memory_; }
  const RemoteObjects& objects() const { return *objects_; }
  bool has_shim() const { return shim_.has_value(); }
  const ShimInProcess& shim() const { return *shim_; }
  std::vector<std::string>& notes() { return notes_; }
  const std::vector<std::chrono::microseconds>& pauses() const { return pauses_; }

  absl::Status Inject(const std::string& shim_path);

  // The state that the shim has in this very process: a forked child has a copy of its parent's.
  absl::StatusOr<recording::AttachState> State() const;

  // Says what can be hooked, and how. After the shim has been started, before it gets its file: it says in the
  // recording what it will not see.
  absl::Status PlanHooks();
  absl::Status InstallHooks();
  // Meets those of threads that sleep in Atomics.wait, where pools of workers spend their time without ever coming to
  // their loops, and of threads that compute and do not come there either. Ever more rarely, by itself: each of these
  // threads that is not known stands still for a moment.
  void MeetTheOthers();
  void MeetTheOthersIfDue();
  // A full collection, the picture of the end and the freeze, on the thread of the event loop. False: that could not
  // be.
  absl::StatusOr<bool> Collect();
  // Meets the isolates of the main thread and of workers early, where their loops sleep; the others are met at their
  // loops' next turns.
  void MeetIsolates();
  // Freezes the recording when it is not frozen, takes the hooks out, unmaps the recording when no thread is inside the
  // recorder any more, and leaves the shim inert. Whatever state it is in.
  absl::Status CleanUp();

 private:
  AttachedProcess(const AttachTarget& target, RemoteMemory memory, UniqueFd claim)
      : target_(target), memory_(std::move(memory)), claim_(std::move(claim)) {}

  absl::Status Look();
  absl::StatusOr<bool> CollectByTheRecorder();
  // Stops all threads, calls `change`, lets them go; again while either says Unavailable, for some seconds.
  template <typename Change>
  absl::Status InStoppedWorld(Change change);
  bool IsAnyThreadInside(StoppedWorld* world, const recording::AttachControl& control) const;
  bool IsClean() const;
  absl::Status Stop();
  absl::Status TakeHooksOut(bool* quiet);
  absl::Status Release();

  AttachTarget target_;
  RemoteMemory memory_;
  UniqueFd claim_;
  std::unique_ptr<RemoteObjects> objects_;
  std::optional<ShimInProcess> shim_;
  HookPlans plans_;
  std::set<pid_t> met_threads_;
  std::chrono::steady_clock::time_point meet_others_at_;
  std::chrono::milliseconds meet_others_again_ = std::chrono::milliseconds(500);
  std::vector<std::string> notes_;
  std::vector<std::chrono::microseconds> pauses_;
};

}  // namespace nodeleak::tracer
