#include "preload/hooks/thread_hooks.h"

#include <limits.h>
#include <pthread.h>

#include "preload/base/guard.h"
#include "preload/hooks/process_originals.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {
namespace {

using StartRoutine = void* (*)(void*);

// What a new thread must know, from pthread_create until its first instructions. When all are taken, the thread
// starts unseen.
struct PendingStart {
  bool taken;
  StartRoutine routine;
  void* argument;
  uint32_t thread;     // in the recording
  uint32_t recording;  // which one
};
constexpr uint32_t kMaxPending = 256;
PendingStart g_pending[kMaxPending];

// Its destructor tells that a thread ends, by return, pthread_exit or cancellation alike.
pthread_key_t g_ending_key;
bool g_has_key;

PendingStart* Take() {
  for (PendingStart& pending : g_pending)
    if (!__atomic_load_n(&pending.taken, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&pending.taken, true, __ATOMIC_ACQUIRE))
      return &pending;
  return nullptr;
}
void Release(PendingStart* pending) { __atomic_store_n(&pending->taken, false, __ATOMIC_RELEASE); }

// Other keys' destructors free memory of this thread: be the last by asking for another round, as often as POSIX has
// rounds.
void OnThreadEnding(void* value) {
  auto round = reinterpret_cast<uintptr_t>(value);
  if (round < PTHREAD_DESTRUCTOR_ITERATIONS - 1) {
    pthread_setspecific(g_ending_key, reinterpret_cast<void*>(round + 1));
    return;
  }
  Guard guard;
  ThreadEnding();
}

// A tail call: the thread's stack has no frame of ours.
void* ThreadMain(void* data) {
  auto* pending = static_cast<PendingStart*>(data);
  StartRoutine routine = pending->routine;
  void* argument = pending->argument;
  {
    Guard guard;
    const uint32_t thread = pending->thread;
    const bool is_known = IsRecording() && pending->recording == RecordingNumber();
    Release(pending);
    if (is_known) ThreadStarted(thread);
    if (g_has_key) pthread_setspecific(g_ending_key, reinterpret_cast<void*>(uintptr_t{1}));
  }
  return routine(argument);
}

}  // namespace

void StartThreadHooks() {
  if (g_has_key) return;
  // Key 0 stays unused: V8 10 reads it before it has made its own, and takes what it finds for an isolate.
  pthread_key_t unused;
  if (pthread_key_create(&unused, nullptr) != 0) return;
  g_has_key = pthread_key_create(&g_ending_key, OnThreadEnding) == 0;
  if (unused != 0) pthread_key_delete(unused);
}

}  // namespace nodeleak::preload

NODELEAK_HOOK int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*),
                                 void* argument) noexcept {
  namespace preload = nodeleak::preload;
  const auto& originals = preload::process_originals();
  // node starts the thread of its inspector when the main context is there and none of its JavaScript has run.
  preload::v8::SeenAtLibcCall();
  preload::PendingStart* pending = nullptr;
  if (preload::IsRecording()) {
    preload::Guard guard;
    if (guard.outermost() && (pending = preload::Take()) != nullptr) {
      pending->routine = routine;
      pending->argument = argument;
      pending->recording = preload::RecordingNumber();
      pending->thread = preload::ThreadWillStart(reinterpret_cast<uint64_t>(routine));
    }
  }
  // No Guard here: the stack and the descriptor of the new thread are mappings and blocks like others.
  if (pending == nullptr) return originals.pthread_create(thread, attributes, routine, argument);
  int error = originals.pthread_create(thread, attributes, preload::ThreadMain, pending);
  if (error != 0) preload::Release(pending);
  return error;
}
