#include "preload/v8/end_of_process.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/buffer_lists.h"
#include "preload/v8/collection.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/runtime.h"
#include "preload/v8/safe_point.h"
#include "preload/v8/script_scopes.h"

namespace nodeleak::preload::v8 {
namespace {

bool g_gc_at_end;
bool g_picture_begun;
bool g_collected_at_end;
bool g_frozen_at_exit;      // by OnEnvironmentExit: what a signal to the process itself may turn out not to have been
CodeRange g_cleanup_code;   // node::Environment::CleanupHandles
uint64_t g_main_stack_end;  // one past the main thread's stack

bool IsCleanupCode(uint64_t address) { return address >= g_cleanup_code.start && address < g_cleanup_code.end; }

// Along the saved frame pointers: epoll_pwait <- uv__io_poll <- uv_run <- CleanupHandles.
enum class Chain : uint8_t { kBroken, kOther, kCleanup };
Chain FollowFrames(uint64_t frame) {
  constexpr int kFramesToLookAt = 6;
  for (int i = 0; i < kFramesToLookAt; ++i) {
    const auto* words = reinterpret_cast<const uint64_t*>(frame);
    if (IsCleanupCode(words[1])) return Chain::kCleanup;
    uint64_t next = words[0];
    if (next <= frame || next + 16 > g_main_stack_end || (next & 7) != 0) return Chain::kBroken;
    frame = next;
  }
  return Chain::kOther;
}

// A libuv or node without frame pointers (Debian's): is a return address into the function anywhere near? Nothing
// else calls it, so none is left over from before. uv__io_poll alone has 12 KiB of events on the stack.
bool IsOnStack(uint64_t from) {
  constexpr uint64_t kBytesToLookAt = 24 * 1024;
  uint64_t end = from + kBytesToLookAt < g_main_stack_end ? from + kBytesToLookAt : g_main_stack_end;
  for (uint64_t at = from; at < end; at += sizeof(uint64_t))
    if (IsCleanupCode(*reinterpret_cast<const uint64_t*>(at))) return true;
  return false;
}

}  // namespace

void PrepareEndOfProcess(bool gc_at_end) {
  g_gc_at_end = gc_at_end;
  __atomic_store_n(&g_picture_begun, false, __ATOMIC_RELEASE);  // an earlier recording's
  g_frozen_at_exit = false;
  ForgetEndRequest();
  g_cleanup_code = CodeOfCleanupHandles();
  // The dynamic linker's own record of where the main thread's stack begins.
  if (auto* end = static_cast<void**>(dlsym(RTLD_DEFAULT, "__libc_stack_end")))
    g_main_stack_end = reinterpret_cast<uint64_t>(*end);
}

bool BeginEndPicture(IsolateRecord* record) {
  if (!IsRecording() || __atomic_exchange_n(&g_picture_begun, true, __ATOMIC_ACQ_REL)) return false;
  recording::GcAtEnd state = recording::GcAtEnd::kOff;
  if (g_gc_at_end)
    state = HasFeature(Feature::kForcedGc) ? recording::GcAtEnd::kDone : recording::GcAtEnd::kNotReachable;
  g_collected_at_end = state == recording::GcAtEnd::kDone;
  {
    Guard guard;
    NoteBeforeEndGc();
    if (g_collected_at_end) BeginConfirmation(recording::ConfirmationKind::kAtEnd);
    if (!g_collected_at_end) SetGcAtEnd(state);
  }
  if (!g_collected_at_end) return true;
  CollectWorkersAtEnd();
  // At least two full collections, more while weak callbacks let go of more, and then the wait for the concurrent
  // sweeper of array buffers (V8, Heap::CollectAllAvailableGarbage). No Guard: the garbage that goes away here is
  // news for the block table.
  SetFreePhase(FreePhase::kGarbage);
  CollectNow(record);
  SetFreePhase(FreePhase::kPending);
  Guard guard;
  SetGcAtEnd(state);
  return true;
}

void FinishEndPicture(IsolateRecord* record, recording::FreezeReason reason, int signal, EndTurns turns) {
  if (g_collected_at_end && turns.something_ran) CollectNow(record);  // what the finalizers have let go
  SetFreePhase(FreePhase::kOrdinary);
  ReadHeapStatistics(record);
  if (g_collected_at_end) ReadBufferListAfterGc(record);
  Guard guard;
  if (g_collected_at_end) EndConfirmation(recording::ConfirmationKind::kAtEnd, turns.count);
  if (signal != 0) SetEndSignal(signal);
  Freeze(reason);
}

void EndPictureWithoutTurns() {
  Guard guard;
  if (g_collected_at_end) EndConfirmation(recording::ConfirmationKind::kAtEnd, 0);
}

void TakePictureInCleanup(IsolateRecord* record) {
  ScopesHold hold(record);
  if (!BeginEndPicture(record)) return;
  const bool finalizers =
      g_collected_at_end && record->environment != nullptr && symbols().run_native_immediates != nullptr;
  EndTurns turns;
  if (finalizers) {
    // node::Environment::RunCleanup does the same again and again until nothing is left. JavaScript is disallowed by
    // now, so what runs is native, and node frees its entry in the queue (src/callback_queue.h): no free, nothing ran.
    const uint32_t frees = t_locals.frees_seen;
    symbols().run_native_immediates(record->environment, true);
    turns = {.count = 1, .something_ran = t_locals.frees_seen != frees || !IsConfirming()};
  }
  FinishEndPicture(record, recording::FreezeReason::kAtExit, 0, turns);
}

void OnEnvironmentExit(void* data) {
  auto* record = static_cast<IsolateRecord*>(data);
  if (!RuntimeStarted()) return;  // a forked child
  if (TryGetCurrentIsolate() != record->isolate) return;
  int saved_errno = errno;
  int signal = PendingEndSignal();
  if (record->is_main) {
    ScopesHold hold(record);
    if (!FinishEndTurns(record) && BeginEndPicture(record)) {
      FinishEndPicture(record, recording::FreezeReason::kAtExit, 0, {});
      g_frozen_at_exit = true;
    }
  }
  Unregister(record);
  errno = saved_errno;
  if (record->is_main && signal != 0) FinishEndSignal();
}

void SeenAfterSignal() {
  int saved_errno = errno;
  if (IsBackFromEnd()) {
    const bool is_main = RawSyscall(SYS_gettid) == RawSyscall(SYS_getpid);
    if (is_main && g_frozen_at_exit) {
      g_frozen_at_exit = false;
      __atomic_store_n(&g_picture_begun, false, __ATOMIC_RELEASE);
      Guard guard;
      Thaw();
    }
    SeenAtLibcCall();  // node has forgotten our callback: another one for the real end
  }
  errno = saved_errno;
}

bool IsCleanupPoll() {
  if (g_cleanup_code.start == 0 || g_main_stack_end == 0) return false;
  auto frame = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  Chain chain = FollowFrames(frame);
  return chain == Chain::kBroken ? IsOnStack(frame) : chain == Chain::kCleanup;
}

}  // namespace nodeleak::preload::v8
