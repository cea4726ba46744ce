#include "preload/v8/safe_point.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/end_of_process.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload::v8 {
namespace {

// idle -> asked -> begun -> done; the watcher alone takes asked back to idle, by compare-and-swap.
enum RequestState : uint32_t { kIdle, kAsked, kBegun, kDone };
uint32_t g_state = kIdle;  // a futex
EndPictureRequest g_request;

constexpr uint32_t kNudgeEveryMs = 20;

bool Advance(uint32_t from, uint32_t to) {
  return __atomic_compare_exchange_n(&g_state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void Finish() {
  __atomic_store_n(&g_state, static_cast<uint32_t>(kDone), __ATOMIC_RELEASE);
  RawSyscall(SYS_futex, reinterpret_cast<long>(&g_state), FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void ServeEndRequest(IsolateRecord* record) {
  if (__atomic_load_n(&g_state, __ATOMIC_ACQUIRE) != kAsked || !record->is_main || !Advance(kAsked, kBegun)) return;
  TakeEndPicture(record, recording::FreezeReason::kSignal, g_request.signal);
  Finish();
  g_request.then(g_request.signal);
}

void OnInterrupt(Isolate* isolate, void* data) {
  auto* record = static_cast<IsolateRecord*>(data);
  if (!RuntimeStarted() || record->isolate != isolate) return;
  int saved_errno = errno;
  ServeEndRequest(record);
  errno = saved_errno;
}

// The state after at most `ms`, if it still is `expected`.
uint32_t WaitForChange(uint32_t expected, uint32_t ms) {
  timespec timeout = {ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
  RawSyscall(SYS_futex, reinterpret_cast<long>(&g_state), FUTEX_WAIT_PRIVATE, expected,
             reinterpret_cast<long>(&timeout));
  return __atomic_load_n(&g_state, __ATOMIC_ACQUIRE);
}

// Makes a thread that waits in epoll_pwait come back to our hook: libuv polls again after EINTR. The signal itself is
// the one that was asked for; its handler is ours and does nothing new.
void Nudge(uint32_t thread_id, int signal) { RawSyscall(SYS_tgkill, RawSyscall(SYS_getpid), thread_id, signal); }

// The thread id of the main isolate, 0 when it is not there (any more).
uint32_t AskMainIsolate() {
  MainIsolateHold hold;
  IsolateRecord* record = hold.record();
  if (record == nullptr) return 0;
  if (HasFeature(Feature::kForcedGc)) symbols().request_interrupt(record->isolate, OnInterrupt, record);
  return record->thread_id;
}

}  // namespace

int PendingEndSignal() { return __atomic_load_n(&g_state, __ATOMIC_ACQUIRE) == kAsked ? g_request.signal : 0; }

void FinishEndSignal() {
  if (!Advance(kAsked, kBegun)) return;
  Finish();
  g_request.then(g_request.signal);
}

bool RequestEndPicture(const EndPictureRequest& request) {
  g_request = request;
  if (!Advance(kIdle, kAsked)) return false;
  uint32_t thread_id = AskMainIsolate();
  request.asked();
  if (thread_id == 0) return !Advance(kAsked, kIdle);
  uint64_t give_up = MonotonicNanoseconds() + request.timeout_ms * uint64_t{1'000'000};
  uint32_t state = kAsked;
  while (state == kAsked && MonotonicNanoseconds() < give_up) {
    if (!IsRecording()) break;  // the picture came by another way, the natural end
    Nudge(thread_id, request.signal);
    state = WaitForChange(kAsked, kNudgeEveryMs);
  }
  if (Advance(kAsked, kIdle)) return false;
  give_up = MonotonicNanoseconds() + kPictureMs * uint64_t{1'000'000};
  while (state != kDone && MonotonicNanoseconds() < give_up) state = WaitForChange(kBegun, kNudgeEveryMs);
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
  if (done && end) done = record->is_main && TakeEndPicture(record, recording::FreezeReason::kDetach, 0);
  errno = saved_errno;
  return done;
}

void SafePoint(int timeout_ms) {
  if (!RuntimeStarted() || t_locals.depth != 0 || !IsRecording()) return;
  int saved_errno = errno;
  if (IsolateRecord* record = FindOrRegisterIsolate()) {
    LoopTurns(record->index);
    if (timeout_ms != 0) {
      ServeEndRequest(record);
      ReadHeapStatisticsIfDue(record);
    } else if (record->is_main && IsCleanupPoll()) {
      TakeEndPicture(record, recording::FreezeReason::kAtExit, 0);
    }
  }
  errno = saved_errno;
}

}  // namespace nodeleak::preload::v8
