// Runs inside node. The one recorder of the process: what recorder.cc, recorder_start.cc and watcher.cc share.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
#include "preload/recorder/block_table.h"
#include "preload/recorder/checkpoints.h"
#include "preload/recorder/range_table.h"
#include "preload/recorder/recorder.h"
#include "preload/recorder/recording_file.h"
#include "preload/recorder/stack_table.h"
#include "preload/recorder/threads.h"

namespace nodeleak::preload {

// Lives in a page that the kernel wipes in every forked child, however it was forked: there recording is simply off.
struct ControlPage {
  uint32_t recording;
};

// Frozen by the first Freeze; kThawing while that is taken back, kForGood when it cannot be any more.
enum class Frozen : uint32_t { kNot, kFrozen, kThawing, kForGood };

struct RecorderState {
  ControlPage* control = {};  // nullptr before StartRecording
  uint32_t number = {};       // RecordingNumber()
  uint64_t start_ns = {};     // CLOCK_MONOTONIC
  uint32_t frozen = {};       // Frozen
  uint64_t sampled = {};      // allocations that were recorded by chance
  RecordingFile file = {};
  BlockTable blocks = {};
  RangeTable ranges = {};
  StackTable stacks = {};
  Threads threads = {};
  SpinLock isolate_lock = {};  // appends to isolates and spaces
  AppendTable<recording::Isolate> isolates = {};
  AppendTable<recording::HeapSpace> spaces = {};
  AppendTable<recording::TimelineSample> timeline = {};    // watcher thread only
  Checkpoints checkpoints = {};                            // watcher thread only
  AppendTable<recording::FreedByGc> freed_by_gc = {};      // confirmation.cc
  AppendTable<recording::GcAnswer> gc_answers = {};        // appended to by the watcher thread only
  AppendTable<recording::OlderBuffer> older_buffers = {};  // older_buffers.cc
  AppendTable<recording::BufferList> buffer_lists = {};
  AppendTable<recording::Module> modules = {};          // under the module table's lock
  AppendTable<recording::MemoryPicture> pictures = {};  // memory_pictures.cc
  AppendTable<recording::MemoryUse> picture_uses = {};
  AppendTable<recording::MemoryArena> picture_arenas = {};
  AppendTable<recording::OwnMapping> own_mappings = {};
  uint64_t heap_used = {};  // of all isolates, at their last safe point
};
extern RecorderState g_recorder __attribute__((visibility("hidden")));

inline uint64_t NanosecondsSinceStart() { return MonotonicNanoseconds() - g_recorder.start_ns; }
// The coarse clock is up to a timer tick (4 ms) behind the other: at the start, even behind the start.
inline uint32_t TicksSinceStart() {
  const uint64_t now_ns = CoarseMonotonicNanoseconds();
  if (now_ns <= g_recorder.start_ns) return 0;
  return static_cast<uint32_t>((now_ns - g_recorder.start_ns) / recording::kTickNanoseconds);
}

// Writes the totals that the header keeps. Any thread.
void UpdateTotals();

// watcher.cc: starts the watcher thread, which sleeps by calling `sleep(what the bell read, milliseconds)`. Inside a
// Guard.
using WatcherSleep = void (*)(uint32_t bell, uint32_t timeout_ms);
bool StartWatcher(WatcherSleep sleep);
// What that thread does, until the recording is frozen. On a thread of ours.
void Watch(WatcherSleep sleep);
void ForgetSchedule();  // the next recording begins with short intervals again
// A thread of ours: detached, all signals blocked, a small stack, nothing of it is recorded. 0 or errno.
int StartOwnThread(void* (*routine)(void*));
// One sample and, when due, one checkpoint. Watcher thread; also at the freeze, when the watcher is told to leave them
// alone.
void SampleNow();

// mailbox.cc, on the watcher thread: looks after requests from outside; how many milliseconds it may sleep at most.
uint32_t ServeMailbox();
void ForgetRequests();  // the recording goes

uint64_t ReadRssBytes();

}  // namespace nodeleak::preload
