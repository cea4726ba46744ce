// Runs inside node, on any thread, possibly inside malloc. Never allocates through a hooked allocator, never throws,
// waits only for its own short locks and as long as Patience says: then the event is counted as lost.
//
// The recorder owns the recording file and everything in it. The hooks call Allocated/Freeing/Mapped..., the V8 runtime
// reports isolates and collections, the end of the process freezes it. Each function says which threads may call it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "preload/recorder/range_table.h"
#include "recording/layout.h"

namespace nodeleak::preload {

struct RecorderOptions {
  const char* path_template;  // absolute, with %p and %n; nullptr: `descriptor` is the empty file
  int descriptor;
  const char* shim_path;   // of the shim's own file, where it was loaded from memory; nullptr: as it is mapped
  const char* index_path;  // the launcher's list of recordings; may be null
  uint64_t max_bytes;      // of the recording
  uint64_t sample_bytes;   // 0: every allocation; or recording::kSampleAutomatically
  uint64_t on_rss_bytes;   // a memory picture when the RSS crosses it; 0: no
  uint32_t flags;          // recording::HeaderFlag
  bool gc_at_end;
};

// Process-wide: true between Start and Freeze. One relaxed load; every hook looks at it first.
bool IsRecording();

// Creates the file and begins: in a process that was started with the shim, on the main thread; in one that was
// attached to, on the shim's own thread, and again after ReleaseRecording. False: *why (static text) says what failed;
// the process goes on unrecorded.
bool StartRecording(const RecorderOptions& options, const char** why);

// A line for the launcher, which reads them when the command has ended: the path of a recording, or "!" and a sentence.
// It may be out of reach: gone, or another user's.
void TellLauncher(const char* index_path, const char* line);

// Which recording of this process it is: what is remembered of an earlier one (indices into its tables) is void.
uint32_t RecordingNumber();

// After the freeze, when no thread is inside the recorder: unmaps the recording and everything beside it. In a forked
// child: what it has of its parent's.
void ReleaseRecording();

// Stops recording blocks and mappings and writes down why. Idempotent: the first caller wins. Any thread.
void Freeze(recording::FreezeReason reason);

// Takes a freeze of kAtExit back: the process goes on. What other threads did in between is not recorded; the recording
// says so. On the thread that froze it, nobody else is ending the process.
void Thaw();

// From now on Thaw comes too late: what it needs may go. False: the recording goes on.
bool StayFrozen();

// malloc is not libc's (jemalloc, mimalloc): its free memory is not looked into. Once, before other threads.
void SetOtherAllocator();

// The picture before the forced GC at the end, so that the report can name the garbage. Any thread, before Freeze.
void NoteBeforeEndGc();
void SetGcAtEnd(recording::GcAtEnd state);
void SetExitCode(int code);
void SetEndSignal(int signal);

// What follows does nothing when the recording has stopped. It is asked again here, inside the caller's Guard: a thread
// whose depth is 0 after the stop will never touch the recording again, so that then it can be unmapped.

// --- the allocator hooks, any thread; the calling thread is inside a Guard
void Allocated(const void* address, size_t bytes);
void Freeing(const void* address);

// A collection is about to begin on this thread: what is allocated meanwhile has the JavaScript frames of here, and
// they are read from a heap in which nothing moves yet. Inside a Guard.
void CollectionBegins();

// realloc is remove, call, insert; a failed call puts the old block back as it was.
struct RemovedBlock {
  recording::Block block;  // address 0: was not known
  uint64_t unknown;        // then its address; 0 while nothing is recorded
};
RemovedBlock TakeForRealloc(const void* address);
void PutBack(const RemovedBlock& removed);  // the call failed
void Forget(const RemovedBlock& removed);   // the call succeeded: the old block is gone

// --- the mapping hooks
struct MappingEvent {
  uint64_t start, bytes;
  int protection;
  int map_flags;  // MAP_*
  bool file;
};
void Mapped(const MappingEvent& event);                          // after a successful mmap
void Protected(uint64_t start, uint64_t bytes, int protection);  // after a successful mprotect
// munmap and mremap take what they are about to take away out of the table, call, and say what has become of it.
void TakeMapping(uint64_t start, uint64_t bytes, TakenRanges* taken);
void Unmapped(const TakenRanges& taken);
void Remapped(const TakenRanges& taken, uint64_t new_start, uint64_t new_bytes);
void PutBack(const TakenRanges& taken);  // the call failed
// After a successful mremap that left the old mapping where it is.
void MappedLike(uint64_t old_start, const MappingEvent& event);
void BreakMoved(uint64_t bytes);

// --- threads; called on the thread itself, or by its creator where said
uint32_t ThreadWillStart(uint64_t start_routine);  // creator, before pthread_create: takes the creation stack; returns
                                                   // a Thread index or kNoIndex
void ThreadStarted(uint32_t thread_index);         // new thread, first thing
void ThreadEnding();

// --- V8 runtime; on the isolate's thread. Indices into the Isolate table; kNoIndex when it is full.
uint32_t IsolateRegistered(uint64_t address, bool main_isolate);
void IsolateDisposed(uint32_t isolate);
struct GcEvent {
  uint32_t isolate;
  uint32_t
      v8_type;  // v8::GCType bits: 1 scavenge, 2 minor mark-sweep, 4 mark-compact, 8 incremental, 16 weak callbacks
  uint64_t duration_ns;
};
void CollectionFinished(const GcEvent& event);

// The isolate's event loop is about to poll.
void LoopTurns(uint32_t isolate);

// v8::HeapStatistics of one isolate, bytes. And its spaces; names are copied.
struct HeapStatistics {
  uint64_t total, physical, used, limit, malloced, peak_malloced, external, external_told, global_handles,
      native_contexts, detached_contexts;
};
void HeapStatisticsRead(uint32_t isolate, const HeapStatistics& statistics);
// Bytes used right after a collection, when the young garbage, and after a full one all of it, is gone.
void HeapUsedAfterCollection(uint32_t isolate, uint64_t used, bool full);
void HeapSpaceRead(uint32_t isolate, const char* name, uint64_t size, uint64_t used, uint64_t available,
                   uint64_t physical);

// Answers to a request for collections, one row per isolate. The watcher adds; kNoIndex: no room. Whoever has the
// answer sets it.
uint32_t AddGcAnswer(uint32_t isolate);
void SetGcAnswer(uint32_t row, const recording::GcAnswer& answer);

// What the watcher sleeps on: a futex shared with whoever maps the recording. Ringing counts it up, so that a ring
// between a look and the sleep is not lost. Any thread, also in a signal handler, while IsRecording or after Freeze.
uint32_t* WatcherBell();
void RingWatcher();

void SetCapability(recording::CapabilityId id, recording::CapabilityState state, const char* why);
void SetVersions(const char* node_version, const char* v8_version);
void CountLoss(recording::LossId id, uint64_t bytes);

// The recorded process itself is about to replace its image: what stands in the file then is its end. ExecFailed takes
// it back. Never called in a vfork child.
void WillExec();
void ExecFailed();

// The forked child: stop, touch nothing of the parent's file. In the child, first thing after fork.
void ForkedChild();

}  // namespace nodeleak::preload
