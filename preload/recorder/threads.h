// Runs inside node. Threads of the process: who they are, whose stacks count under whom, and their per-thread memory.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
#include "preload/recorder/thread_state.h"
#include "recording/layout.h"

namespace nodeleak::preload {

// Threads of one pool (same creation stack) count under their first member, so a pool does not multiply the stacks. A
// thread with its own isolate is somebody: it counts under itself, up to kMaxNamedWorkers, then under the first one
// beyond.
inline constexpr uint32_t kMaxNamedWorkers = 64;

class Threads {
 public:
  bool Attach(RecordingFile* file);
  // The creator's side; `creation_stack` is the Stack of the pthread_create call.
  uint32_t WillStart(uint64_t start_routine, uint32_t creation_stack);
  void Started(uint32_t index);  // on the new thread
  void Ending();                 // on the ending thread
  void BecameWorker();           // on a thread that got an isolate and is not the main one
  void RefreshNames();           // watcher thread: names change after the start
  ThreadState* MakeState();      // for a thread seen for the first time in this recording
  // Forgets the recording. Threads that end meanwhile still give their states back.
  void Release();

  recording::Thread& operator[](uint32_t index) const { return threads_[index]; }
  uint64_t count() const { return threads_.count(); }

 private:
  uint32_t Register(const recording::Thread& thread);
  ThreadState* TakeState(bool from_pthread_create);
  uint64_t Now() const { return MonotonicNanoseconds() - start_ns_; }
  uint32_t GroupOf(uint32_t index) const;

  uint64_t start_ns_ = 0;
  SpinLock lock_;
  AppendTable<recording::Thread> threads_;
  ThreadState* free_states_ = nullptr;
  uint32_t workers_ = 0;
  uint32_t overflow_worker_ = recording::kNoIndex;
};

}  // namespace nodeleak::preload
