#include "preload/v8/safe_point.h"

#include <errno.h>
#include <sys/syscall.h>

#include "preload/base/futex.h"
#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/buffer_lists.h"
#include "preload/v8/collection.h"
#include "preload/v8/end_of_process.h"
#include "preload/v8/event_loop.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/runtime.h"
#include "preload/v8/script_scopes.h"

namespace nodeleak::preload::v8 {
namespace {

// idle -> asked -> begun -> (turning -> begun) -> done; the watcher alone takes asked and turning back to idle. All by
// compare-and-swap.
enum RequestState : uint32_t { kIdle, kAsked, kBegun, kTurning, kDone };
uint32_t g_state = kIdle;  // a futex
EndPictureRequest g_request;
uint32_t g_turns;  // of the event loop while kTurning
uint64_t g_turning_since_ns;

constexpr uint32_t kNudgeEveryMs = 20;
// The program should be dead by now. Finalizers get two turns of its loop, and only as long as nothing else takes long.
constexpr uint32_t kEndTurns = 2;
constexpr uint64_t kEndTurnsNs = 300'000'000;
constexpr uint64_t kYieldsWithinNs = 500'000'000;  // JavaScript, to its loop; otherwise it is interrupted

bool Advance(uint32_t from, uint32_t to) {
  return __atomic_compare_exchange_n(&g_state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void Finish() {
  __atomic_store_n(&g_state, static_cast<uint32_t>(kDone), __ATOMIC_RELEASE);
  FutexWake(&g_state);
}

void Then() {
  if (g_request.then != nullptr) g_request.then(g_request.signal);
}

void FinishPicture(IsolateRecord* record, uint32_t turns) {
  const auto reason = g_request.signal != 0 ? recording::FreezeReason::kSignal : recording::FreezeReason::kDetach;
  FinishEndPicture(record, reason, g_request.signal, {.count = turns, .something_ran = turns != 0});
  Finish();
  Then();
}

void BeginPicture(IsolateRecord* record, Place place) {
  if (!BeginEndPicture(record)) {
    Finish();
    return Then();
  }
  if (place != Place::kOwnLoop && place != Place::kOwnLoopAgain) return FinishPicture(record, 0);
  g_turns = 0;
  g_turning_since_ns = MonotonicNanoseconds();
  __atomic_store_n(&g_state, static_cast<uint32_t>(kTurning), __ATOMIC_RELEASE);
  WakeEventLoop(*record);
}

void ServeEndRequest(IsolateRecord* record, Place place) {
  const uint32_t state = __atomic_load_n(&g_state, __ATOMIC_ACQUIRE);
  if (state == kIdle || !record->is_main) return;
  if (state == kAsked && Advance(kAsked, kBegun)) return BeginPicture(record, place);
  if (state != kTurning) return;
  if (place == Place::kOwnLoopAgain) return;  // a signal came, maybe our own: no turn
  if (place == Place::kOwnLoop && ++g_turns < kEndTurns) return WakeEventLoop(*record);
  if (Advance(kTurning, kBegun)) FinishPicture(record, g_turns);
}

void OnInterrupt(Isolate* isolate, void* data) {
  auto* record = static_cast<IsolateRecord*>(data);
  if (record->isolate != isolate) return;
  // Before looking for requests: one that comes later asks for an interrupt of its own.
  __atomic_store_n(&record->interrupt_queued, false, __ATOMIC_SEQ_CST);
  if (!RuntimeStarted() || !IsRecording()) return;
  int saved_errno = errno;
  FindOrRegisterIsolate();  // this recording may be a later one than that which knows the isolate
  ServeEndRequest(record, Place::kInterrupt);
  ServeCollection(record, Place::kInterrupt);
  errno = saved_errno;
}

// The state after at most `ms`, if it still is `expected`.
uint32_t WaitForChange(uint32_t expected, uint32_t ms) {
  FutexWait(&g_state, expected, ms);
  return __atomic_load_n(&g_state, __ATOMIC_ACQUIRE);
}

// Makes a thread that waits in epoll_pwait come back to our hook: libuv polls again after EINTR. The signal itself is
// the one that was asked for; its handler is ours and does nothing new.
void Nudge(uint32_t thread_id, int signal) { RawSyscall(SYS_tgkill, RawSyscall(SYS_getpid), thread_id, signal); }

// The thread id of the main isolate, 0 when it is not there (any more). A detach can wait for the end of a turn.
uint32_t AskMainIsolate(bool urgent) {
  IsolatesHold hold;
  IsolateRecord* record = hold.main();
  if (record == nullptr) return 0;
  if (urgent) {
    InterruptOnce(record);
  } else {
    WakeEventLoop(*record);
  }
  return record->thread_id;
}

}  // namespace

void InterruptOnce(IsolateRecord* record) {
  if (!HasFeature(Feature::kForcedGc)) return;
  if (__atomic_exchange_n(&record->interrupt_queued, true, __ATOMIC_SEQ_CST)) return;
  symbols().request_interrupt(record->isolate, OnInterrupt, record);
}

int PendingEndSignal() { return __atomic_load_n(&g_state, __ATOMIC_ACQUIRE) == kAsked ? g_request.signal : 0; }

bool FinishEndTurns(IsolateRecord* record) {
  if (!Advance(kTurning, kBegun)) return false;
  FinishPicture(record, g_turns);
  return true;
}

void FinishEndSignal() {
  if (!Advance(kAsked, kBegun)) return;
  Finish();
  Then();
}

void ForgetEndRequest() { __atomic_store_n(&g_state, static_cast<uint32_t>(kIdle), __ATOMIC_RELEASE); }

bool GiveUpEndTurns() {
  if (Advance(kTurning, kDone)) EndPictureWithoutTurns();
  return __atomic_load_n(&g_state, __ATOMIC_ACQUIRE) != kBegun;
}

namespace {

// Until the isolate's thread has begun with the picture; false: it has not.
bool WaitForBegin(uint32_t thread_id, const EndPictureRequest& request) {
  const uint64_t begun = MonotonicNanoseconds(), give_up = begun + request.timeout_ms * uint64_t{1'000'000};
  uint32_t state = kAsked;
  for (uint64_t now = begun; state == kAsked && now < give_up; now = MonotonicNanoseconds()) {
    if (!IsRecording()) break;  // the picture came by another way, the natural end
    if (request.signal != 0) {
      Nudge(thread_id, request.signal);
    } else {
      AskMainIsolate(now - begun > kYieldsWithinNs);
    }
    state = WaitForChange(kAsked, kNudgeEveryMs);
  }
  return !Advance(kAsked, kIdle);
}

// The turns of the loop take too long: JavaScript runs, and is interrupted.
void CutTurnsShort() {
  IsolatesHold hold;
  if (hold.main() != nullptr) InterruptOnce(hold.main());
}

}  // namespace

bool RequestEndPicture(const EndPictureRequest& request) {
  g_request = request;
  if (!Advance(kIdle, kAsked)) return false;
  uint32_t thread_id = AskMainIsolate(request.signal != 0);
  if (request.asked != nullptr) request.asked();
  if (thread_id == 0) return !Advance(kAsked, kIdle);
  if (!WaitForBegin(thread_id, request)) return false;
  const uint64_t give_up = MonotonicNanoseconds() + kPictureMs * uint64_t{1'000'000};
  uint32_t state = __atomic_load_n(&g_state, __ATOMIC_ACQUIRE);
  while (state != kDone && MonotonicNanoseconds() < give_up) {
    // The collection before the turns takes as long as it takes.
    const uint64_t turning = state == kTurning ? MonotonicNanoseconds() - g_turning_since_ns : 0;
    if (turning > kEndTurnsNs) CutTurnsShort();
    if (turning > 2 * kEndTurnsNs && Advance(kTurning, kIdle)) {
      EndPictureWithoutTurns();
      return false;
    }
    state = WaitForChange(state, kNudgeEveryMs);
  }
  return state == kDone;
}

void SeenAtLibcCall() {
  if (!RuntimeStarted() || !IsRecording() || t_locals.depth != 0) return;
  int saved_errno = errno;
  FindOrRegisterIsolate();
  errno = saved_errno;
}

bool BorrowedSafePoint(bool end) {
  if (!RuntimeStarted() || t_locals.depth != 0 || !IsRecording()) return false;
  int saved_errno = errno;
  IsolateRecord* record = FindOrRegisterIsolate();
  bool done = record != nullptr;
  if (done && !end) ReadBufferListIfDue(record);
  if (done && end) {
    done = record->is_main && Advance(kIdle, kBegun);
    if (done) {
      g_request = {};
      BeginPicture(record, record->loop != nullptr ? Place::kOwnLoop : Place::kNestedLoop);
    }
  }
  errno = saved_errno;
  return done;
}

namespace {
void MeetInInterrupt(Isolate* isolate, void*) {
  if (!RuntimeStarted() || !IsRecording() || TryGetCurrentIsolate() != isolate) return;
  int saved_errno = errno;
  if (IsolateRecord* record = FindOrRegisterIsolate()) ReadBufferListIfDue(record);
  errno = saved_errno;
}
}  // namespace

bool BorrowedInCompiledCode() {
  if (!RuntimeStarted() || t_locals.depth != 0 || !IsRecording() || !HasFeature(Feature::kForcedGc)) return false;
  Isolate* isolate = TryGetCurrentIsolate();
  if (isolate == nullptr) return false;
  const IsolateRecord* known = CurrentIsolateRecord();
  if (known != nullptr && known->isolate == isolate && known->recording == RecordingNumber()) return true;
  int saved_errno = errno;
  Guard guard;
  const bool ours = symbols().is_locked(isolate);
  if (ours) symbols().request_interrupt(isolate, MeetInInterrupt, nullptr);
  errno = saved_errno;
  return ours;
}

bool SafePoint(int epoll_fd, int timeout_ms, bool again) {
  if (!RuntimeStarted() || t_locals.depth != 0 || !IsRecording()) return false;
  int saved_errno = errno;
  bool cannot_be_woken = false;
  if (IsolateRecord* record = FindOrRegisterIsolate()) {
    if (!again) LoopTurns(record->index);
    KeepNotedScopes(record);
    record->has_turned = true;
    const bool own_loop = record->loop != nullptr && record->poll_fd == epoll_fd;
    const Place place = !own_loop ? Place::kNestedLoop : again ? Place::kOwnLoopAgain : Place::kOwnLoop;
    if (timeout_ms == 0 && record->is_main && IsCleanupPoll()) {
      if (!FinishEndTurns(record)) TakePictureInCleanup(record);
    } else {
      ServeEndRequest(record, place);
      ServeCollection(record, place);
    }
    if (timeout_ms != 0) {
      ReadHeapStatisticsIfDue(record);
      ReadBufferListIfDue(record);
    }
    cannot_be_woken = !own_loop;
  }
  errno = saved_errno;
  return cannot_be_woken;
}

}  // namespace nodeleak::preload::v8
