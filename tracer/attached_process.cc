#include "tracer/attached_process.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tracer/inject.h"
#include "tracer/proc_files.h"
#include "tracer/test_point.h"

namespace nodeleak::tracer {
namespace {

using recording::AttachControl;
using recording::AttachRequest;
using recording::AttachSafePoint;
using recording::AttachState;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kWorldPatience(10'000);  // for all threads to be stoppable at the same time
constexpr milliseconds kStopPatience(20'000);   // for the shim's thread to freeze the recording, or to have begun it
constexpr milliseconds kReleasePatience(3000);
constexpr milliseconds kQuietPatience(2000);  // for threads inside the recorder to come out
constexpr milliseconds kMeetPatience(100);
constexpr milliseconds kMeetLimit(3000);
constexpr milliseconds kMeetWorkersPatience(1000);  // for all of them
constexpr milliseconds kMeetAllComputingPatience(100);
constexpr milliseconds kMeetComputingPatience(20);  // to be in compiled JavaScript, not in V8 or a library
constexpr milliseconds kCollectPatience(200);       // for the event loop to sleep
constexpr milliseconds kCollectLimit(60'000);       // a heap of gigabytes
constexpr milliseconds kTurnsPatience(1000);        // for two turns of the loop and another collection

// How long one attempt may keep the threads that stopped at once waiting for those that did not: short at first. A
// thread that starts a program (vfork) cannot be stopped for a millisecond or so, and on a busy machine one may wait
// long for a processor: many short pauses are better for a server than a long one.
milliseconds WorldLimit(size_t attempt) {
  constexpr struct {
    size_t attempts;
    int limit_ms;
  } kSteps[] = {{12, 4}, {12, 8}, {20, 15}, {10, 30}, {5, 60}, {4, 125}, {4, 250}};
  constexpr milliseconds kLongest(500);
  for (const auto& step : kSteps) {
    if (attempt < step.attempts) return milliseconds(step.limit_ms);
    attempt -= step.attempts;
  }
  return kLongest;
}

// An abstract socket's name, held as long as the process works on the target: ours alone, gone with us.
absl::StatusOr<UniqueFd> Claim(const AttachTarget& target) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const std::string name = absl::StrCat("nodeleak-attach-", target.pid, "-", target.start_ticks);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + 1, name.data(), name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) return socket;
  return absl::FailedPreconditionError(errno == EADDRINUSE
                                           ? std::string("another nodeleak is at work on it at this moment")
                                           : absl::StrCat("cannot claim it: ", strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttachedProcess>> AttachedProcess::Open(const AttachTarget& target) {
  absl::StatusOr<UniqueFd> claim = Claim(target);
  if (!claim.ok()) return claim.status();
  absl::StatusOr<RemoteMemory> memory = RemoteMemory::Open(target.pid);
  if (!memory.ok()) return absl::PermissionDeniedError(ExplainRefusal(target.pid));
  std::unique_ptr<AttachedProcess> process(new AttachedProcess(target, *std::move(memory), *std::move(claim)));
  if (absl::Status status = process->Look(); !status.ok()) return status;
  // It may be loading the recorder at this moment, or starting it.
  const absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(process->memory_, *process->objects_, nullptr);
  if (caller.ok())
    if (absl::Status status = caller->AwaitEarlierCall(); !status.ok()) return status;
  if (absl::Status status = process->Look(); !status.ok()) return status;
  return process;
}

absl::Status AttachedProcess::Look() {
  shim_.reset();
  absl::StatusOr<RemoteObjects> objects = RemoteObjects::Read(memory_);
  if (!objects.ok()) return objects.status();
  objects_ = std::make_unique<RemoteObjects>(*std::move(objects));
  absl::StatusOr<std::optional<ShimInProcess>> shim = ShimInProcess::Find(memory_, *objects_);
  if (!shim.ok()) return shim.status();
  shim_ = *std::move(shim);
  return absl::OkStatus();
}

absl::Status AttachedProcess::Inject(const std::string& shim_path) {
  if (absl::Status status = InjectLibrary(memory_, *objects_, shim_path); !status.ok()) return status;
  if (absl::Status status = Look(); !status.ok()) return status;
  if (has_shim()) return absl::OkStatus();
  return absl::InternalError("the recorder was loaded but is not in its list of libraries");
}

absl::StatusOr<AttachState> AttachedProcess::State() const {
  const absl::StatusOr<AttachControl> control = shim_->ReadControl();
  if (!control.ok()) return control.status();
  if (control->pid != ReadInnermostPid(target_.pid)) return AttachState::kInert;
  return static_cast<AttachState>(control->state);
}

template <typename Change>
absl::Status AttachedProcess::InStoppedWorld(Change change) {
  const auto begin = steady_clock::now();
  absl::Status last;
  for (size_t attempt = 0; steady_clock::now() - begin < kWorldPatience; ++attempt) {
    microseconds in_vain(0);
    absl::StatusOr<StoppedWorld> world = StoppedWorld::Stop(target_.pid, WorldLimit(attempt), &in_vain);
    last = world.status();
    if (world.ok()) {
      ReachTestPoint("world stopped");
      last = change(&*world);
      pauses_.push_back(world->Release());
    } else if (in_vain.count() != 0) {
      pauses_.push_back(in_vain);
    }
    if (!absl::IsUnavailable(last)) return last;
    // Not in step with whatever it does again and again.
    for (const auto go_on = steady_clock::now() + milliseconds(5 + 7 * (attempt % 4)); steady_clock::now() < go_on;) {
      std::this_thread::sleep_for(microseconds(200));
      TracedThread::LetGoOfLatecomers();
    }
  }
  return last;
}

absl::Status AttachedProcess::PlanHooks() {
  absl::StatusOr<HookPlans> plans = tracer::PlanHooks(memory_, *objects_, *shim_);
  if (!plans.ok()) return plans.status();
  plans_ = *std::move(plans);
  notes_.insert(notes_.end(), plans_.notes.begin(), plans_.notes.end());
  return shim_->WritePartlyHooked(plans_.partly);
}

absl::Status AttachedProcess::InstallHooks() {
  if (absl::Status status = PrepareHooks(memory_, *shim_, plans_); !status.ok()) return status;
  absl::Status status = InStoppedWorld([&](StoppedWorld* world) { return WriteHooks(memory_, world, plans_); });
  if (status.ok() && plans_.partly) status = shim_->WriteWatchLinks();
  if (status.ok()) ReachTestPoint("patched");
  return status;
}

void AttachedProcess::MeetTheOthers() {
  const absl::StatusOr<AttachControl> control = shim_->ReadControl();
  if (!control.ok()) return;
  const absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(memory_, *objects_, &*shim_);
  if (!caller.ok()) return;
  const auto begin = steady_clock::now();
  const auto meet = [&](Borrow which, pid_t thread, AttachSafePoint what, milliseconds patience) {
    if (met_threads_.count(thread) != 0 || steady_clock::now() - begin > kMeetWorkersPatience) return;
    const auto met = caller->Call({RemoteStep::Call(shim_->safe_point(), {static_cast<uint64_t>(what)})}, which,
                                  patience, kMeetLimit);
    if (met.ok() && static_cast<int32_t>((*met)[0]) == 1) met_threads_.insert(thread);
  };
  for (pid_t thread : ThreadsThatCompute(target_.pid))
    if (steady_clock::now() - begin < kMeetAllComputingPatience)
      meet(Borrow::InCompiledCode(thread), thread, AttachSafePoint::kInterrupt, kMeetComputingPatience);
  if (control->wait_builtin == 0) return;
  for (pid_t thread : ThreadsInFutex(target_.pid))
    meet(Borrow::InWait(thread, control->wait_builtin), thread, AttachSafePoint::kMeet, milliseconds(0));
}

void AttachedProcess::MeetTheOthersIfDue() {
  constexpr milliseconds kSeldom(30'000);
  if (steady_clock::now() < meet_others_at_) return;
  MeetTheOthers();
  meet_others_at_ = steady_clock::now() + meet_others_again_;
  meet_others_again_ = std::min(meet_others_again_ * 2, kSeldom);
}

absl::StatusOr<bool> AttachedProcess::Collect() {
  MeetTheOthers();
  absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(memory_, *objects_, &*shim_);
  if (!caller.ok()) return caller.status();
  const absl::StatusOr<std::vector<uint64_t>> done =
      caller->Call({RemoteStep::Call(shim_->safe_point(), {static_cast<uint64_t>(AttachSafePoint::kEnd)})},
                   Borrow::InLoop(target_.pid), kCollectPatience, kCollectLimit);
  if (!done.ok() && !absl::IsUnavailable(done.status())) return done.status();
  if (!done.ok() || static_cast<int32_t>((*done)[0]) != 1) return CollectByTheRecorder();
  // Two turns of the loop, for finalizers, and what they let go is collected; then it freezes.
  const auto ignored = shim_->AwaitLeaving({AttachState::kRecording}, kTurnsPatience);
  static_cast<void>(ignored);
  return true;
}

// The recorder wakes the loop, or interrupts JavaScript.
absl::StatusOr<bool> AttachedProcess::CollectByTheRecorder() {
  if (absl::Status status = shim_->WriteRequest(AttachRequest::kCollect); !status.ok()) return status;
  for (const auto begin = steady_clock::now(); steady_clock::now() - begin < kCollectLimit;) {
    const absl::StatusOr<AttachControl> control = shim_->ReadControl();
    if (!control.ok()) return control.status();
    if (control->state != static_cast<uint32_t>(AttachState::kRecording)) return true;
    if (control->request == static_cast<uint32_t>(AttachRequest::kNone)) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return false;
}

void AttachedProcess::MeetIsolates() {
  const absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(memory_, *objects_, &*shim_);
  if (!caller.ok()) return;
  const auto meet = [&](pid_t thread, milliseconds patience) {
    const auto met =
        caller->Call({RemoteStep::Call(shim_->safe_point(), {static_cast<uint64_t>(AttachSafePoint::kMeet)})},
                     Borrow::InLoop(thread), patience, kMeetLimit);
    if (met.ok() && static_cast<int32_t>((*met)[0]) == 1) met_threads_.insert(thread);
  };
  meet(target_.pid, kMeetPatience);
  // The others may be no workers: then the call finds no isolate.
  const auto begin = steady_clock::now();
  for (pid_t thread : ThreadsInLoop(target_.pid))
    if (thread != target_.pid && steady_clock::now() - begin < kMeetWorkersPatience) meet(thread, milliseconds(0));
}

// The shim's depth counter of every thread, from outside: 0 means that it is not in the recorder, and since the
// recording has stopped it will not touch it again. Our own thread there does not count.
bool AttachedProcess::IsAnyThreadInside(StoppedWorld* world, const AttachControl& control) const {
  return std::any_of(world->threads().begin(), world->threads().end(), [&](const StoppedThread& stopped) {
    const auto depth_at =
        static_cast<RemoteAddress>(stopped.registers.fs_base + static_cast<uint64_t>(control.depth_offset));
    uint32_t depth = 0;
    if (!memory_.TryRead(depth_at, &depth, sizeof depth) || depth == 0) return false;
    return control.watcher == 0 || ReadInnermostThreadId(target_.pid, stopped.thread.id()) != control.watcher;
  });
}

absl::Status AttachedProcess::Stop() {
  const absl::StatusOr<AttachState> state = State();
  if (!state.ok()) return state.status();
  const bool thread_is_there =
      *state == AttachState::kStarting || *state == AttachState::kWantsFile || *state == AttachState::kRecording;
  if (!thread_is_there) return absl::OkStatus();
  if (absl::Status status = shim_->WriteRequest(AttachRequest::kStop); !status.ok()) return status;
  const auto control =
      shim_->AwaitLeaving({AttachState::kStarting, AttachState::kWantsFile, AttachState::kRecording}, kStopPatience);
  return control.status();
}

absl::Status AttachedProcess::TakeHooksOut(bool* quiet) {
  absl::StatusOr<AttachControl> control = shim_->ReadControl();
  if (!control.ok()) return control.status();
  const auto begin = steady_clock::now();
  if (control->partly_hooked != 0)
    if (absl::Status status = Look(); !status.ok()) return status;  // the shim has hooked libraries that came since
  const HookedSlots slots = FindHookedSlots(memory_, *objects_, *shim_);
  absl::Status status = InStoppedWorld([&](StoppedWorld* world) {
    *quiet = !IsAnyThreadInside(world, *control);
    return RemoveHooks(memory_, *shim_, slots);
  });
  ReachTestPoint("unpatched");
  while (status.ok() && !*quiet && steady_clock::now() - begin < kQuietPatience) {
    std::this_thread::sleep_for(milliseconds(20));
    status = InStoppedWorld([&](StoppedWorld* world) {
      *quiet = !IsAnyThreadInside(world, *control);
      return absl::OkStatus();
    });
  }
  return status;
}

absl::Status AttachedProcess::Release() {
  if (absl::Status status = shim_->WriteRequest(AttachRequest::kRelease); !status.ok()) return status;
  const auto control = shim_->AwaitLeaving(
      {AttachState::kStarting, AttachState::kWantsFile, AttachState::kRecording, AttachState::kStopped},
      kReleasePatience);
  if (!control.ok()) return control.status();
  const auto state = static_cast<AttachState>(control->state);
  if (state == AttachState::kInert || state == AttachState::kFailed) return absl::OkStatus();
  return absl::UnavailableError(
      "the recorder in it does not answer (is the process stopped?); try again with nodeleak detach");
}

// Nothing to take back: the shim is inert, and its rows say that nothing is hooked.
bool AttachedProcess::IsClean() const {
  const absl::StatusOr<AttachState> state = State();
  const absl::StatusOr<AttachControl> control = shim_->ReadControl();
  return state.ok() && control.ok() && !MayBeHooked(*control) &&
         (*state == AttachState::kInert || *state == AttachState::kFailed);
}

absl::Status AttachedProcess::CleanUp() {
  if (IsClean()) return absl::OkStatus();
  if (absl::Status status = Stop(); !status.ok()) return status;
  bool quiet = false;
  if (absl::Status status = TakeHooksOut(&quiet); !status.ok()) return status;
  const absl::StatusOr<AttachState> state = State();
  if (!state.ok()) return state.status();
  if (*state == AttachState::kInert || *state == AttachState::kFailed) return absl::OkStatus();
  if (quiet) return Release();
  return absl::DeadlineExceededError(
      "a thread of it has not come out of the recorder yet, so the recording stays mapped there; the hooks are out. "
      "Later, nodeleak detach does the rest");
}

}  // namespace nodeleak::tracer
