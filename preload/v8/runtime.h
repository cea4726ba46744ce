// Runs inside node. What we ask of V8 and node themselves, through exported symbols found by dlsym: which isolate a
// thread owns, collections, heap statistics, a forced full GC at a safe point, and the moment before node tears itself
// down. Nothing here runs JavaScript or is called from inside a collection; the only handles that stay are weak
// (script_scopes.h).
//
// V8 is called with no Guard open: the blocks that V8 frees while we force a collection are real events and must reach
// the block table.
#pragma once

#include <stdint.h>

#include "recording/layout.h"

namespace nodeleak::preload::v8 {

// Looks up the symbols; false when this process has no V8 that we know. Records the capabilities kGcEvents, kForcedGc,
// kHeapStatistics and kEndOfProcess. Once, at start, after StartRecording.
bool StartRuntime(bool gc_at_end);

// True after a successful StartRuntime, false again in a forked child.
bool RuntimeStarted();

// The thread's place in the world of V8. Called by hooks of libc functions that node calls on an isolate's own thread,
// in context (open64, getcwd, pthread_create...): registers the isolate when it is new. Never collects. Cheap when
// known.
void SeenAtLibcCall();

// After kill() of the own process, on any thread: the end that node has announced to us on this thread did not come.
void SeenAfterSignal();

// Called at the entry of epoll_pwait / epoll_wait with the timeout of the call: the safe point. Does what was
// requested. True: an isolate's thread is about to wait where it cannot be woken for a later request (spawnSync runs a
// loop of its own); the caller had better wait in slices of kPollSliceMs. `again`: the thread's last poll was
// interrupted by a signal, and the loop has not turned since.
bool SafePoint(int epoll_fd, int timeout_ms, bool again);
inline constexpr int kPollSliceMs = 50;

// The calling thread, which a tracer has borrowed while it waited in the loop's poll or in Atomics.wait, is at a safe
// point: its isolate is met. With `end`, in the poll of the main thread: the picture of the end is begun, and the
// recording is frozen after two turns of the loop. False: it has no isolate, or none that can be asked.
bool BorrowedSafePoint(bool end);

// The calling thread, which a tracer has borrowed in the middle of compiled JavaScript: its isolate is met in an
// interrupt, if it is one that is not known. False: it has none.
bool BorrowedInCompiledCode();

// On the watcher thread, before it freezes: the turns do not come. False: the picture is being taken at this moment,
// and will freeze the recording itself.
bool GiveUpEndTurns();

// Number of mark-compacts that the calling thread's isolate has finished (the main isolate's for threads without one).
// For Block::birth_gc. Two loads.
extern __thread const uint32_t* t_major_gcs __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern const uint32_t* g_main_major_gcs __attribute__((visibility("hidden")));
inline uint32_t CurrentMajorGcCount() {
  const uint32_t* counter = t_major_gcs;
  if (counter == nullptr) counter = __atomic_load_n(&g_main_major_gcs, __ATOMIC_RELAXED);
  return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

// Asks the main isolate for the end-of-process picture (GC unless off, then freeze) at its next safe point or
// interrupt. `asked` says when the isolate cannot run further JavaScript without serving it. Called on the watcher
// thread for SIGTERM and its like with default disposition. Waits at most `timeout_ms` for the isolate to begin; once
// begun, kPictureMs more. True: the picture is taken, and `then(signal)` was or is being called on the isolate's
// thread. False: not reachable; freeze without GC. With signal 0, for a detach: the loop is woken, JavaScript that does
// not yield for half a second is interrupted, and the recording is all that ends; `asked` and `then` may be nullptr.
inline constexpr uint32_t kPictureMs = 20'000;
struct EndPictureRequest {
  int signal;
  uint32_t timeout_ms;
  void (*asked)();
  void (*then)(int signal);
};
bool RequestEndPicture(const EndPictureRequest& request);

// Asks every isolate for a full collection, some turns of its event loop, and another collection (recording::GcAnswer;
// recorder/confirmation.h counts what goes). On the watcher thread, one at a time. kDone: they are asked.
recording::MailboxResult AskForCollections(uint32_t reach_ms);
// The watcher calls it again after the returned number of milliseconds; 0: every isolate has answered, or is given up.
uint32_t LookAfterCollections();

// True when the address is code of node itself (or of libnode.so).
bool IsCodeOfNode(uint64_t address);

// In a forked child: V8 is never asked anything again.
void RuntimeForked();

}  // namespace nodeleak::preload::v8
