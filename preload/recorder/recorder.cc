#include "preload/recorder/recorder.h"

#include <string.h>
#include <sys/mman.h>

#include "preload/base/futex.h"
#include "preload/base/guard.h"
#include "preload/base/safe_read.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/memory_pictures.h"
#include "preload/recorder/older_buffers.h"
#include "preload/recorder/recorder_state.h"
#include "preload/recorder/sampler.h"
#include "preload/unwind/stack_walk.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {

using recording::Block;
using recording::FreezeReason;
using recording::Header;
using recording::kNoIndex;
using recording::LossId;
using recording::MarkerId;
using recording::Range;
using recording::Stack;

constinit RecorderState g_recorder;

namespace {
// In trouble: no lock, no sample.
void StopWatching() {
  Header* header = g_recorder.file.header();
  __atomic_store_n(&g_recorder.control->recording, 0u, __ATOMIC_RELEASE);
  header->frozen_ns = NanosecondsSinceStart();
  header->freeze_reason = static_cast<uint32_t>(FreezeReason::kTrouble);
}
}  // namespace

uint32_t RecordingNumber() { return g_recorder.number; }

bool IsRecording() {
  const ControlPage* control = g_recorder.control;
  return control != nullptr && __atomic_load_n(&control->recording, __ATOMIC_RELAXED) != 0;
}

void CountLoss(LossId id, uint64_t bytes) {
  if (g_recorder.control == nullptr || g_recorder.file.header() == nullptr) return;
  recording::Loss& loss = g_recorder.file.header()->losses[static_cast<uint32_t>(id)];
  const uint64_t before = __atomic_fetch_add(&loss.count, 1, __ATOMIC_RELAXED);
  // The holder of a lock is gone for good (longjmp out of a signal handler, a cancelled thread): each wait would cost
  // the program two seconds.
  constexpr uint64_t kMostTimeouts = 2;
  if (id == LossId::kLockTimeout && before >= kMostTimeouts) StopWatching();
  __atomic_fetch_add(&loss.bytes, bytes, __ATOMIC_RELAXED);
}

ThreadState* CurrentThreadState() {
  ThreadState* state = t_locals.state;
  return state != nullptr && state->recording == g_recorder.number ? state : g_recorder.threads.MakeState();
}

namespace {

void Add(uint64_t* counter, uint64_t value) { __atomic_fetch_add(counter, value, __ATOMIC_RELAXED); }

// A counter that nobody else writes: what others see of it is whole, and no locked instruction is needed.
void AddAlone(uint64_t* counter, uint64_t value) {
  __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + value, __ATOMIC_RELAXED);
}

// Whether the calling thread alone allocates at this stack.
bool CountsAlone(const Stack& stack) {
  const ThreadState* state = t_locals.state;
  return state != nullptr && state->counts_alone && stack.thread == state->stack_thread;
}

// Nine stacks of ten are met once, and what is remembered takes memory.
constexpr uint64_t kOftenMet = 8;

// Where a stack begins: the first frame outside the shim.
struct Beginning {
  StackBounds bounds;
  WalkRegisters caller;
  bool own;  // otherwise on another stack than the thread's: a fiber's, a signal handler's
};

// `here`: in the caller's own frame.
Beginning FindBeginning(const ThreadState& state, uint64_t here) {
  Beginning beginning = {};
  beginning.bounds = state.bounds;
  beginning.own = here >= state.lowest && here < state.bounds.high;
  if (!beginning.own) beginning.bounds = {here, FindStackEnd(here), state.lowest, state.bounds.high};
  beginning.bounds.low = here;
  beginning.caller = FindCaller(here, beginning.bounds);
  return beginning;
}

// The Stack of the calling thread here; 0 ("unknown") when it cannot be stored.
uint32_t TakeStack(uint64_t bytes) {
  ThreadState* state = CurrentThreadState();
  if (state == nullptr) return g_recorder.stacks.MarkerStack(MarkerId::kNotWalked);
  const Beginning from = FindBeginning(*state, reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
  if (from.own) {
    const uint32_t known = state->known.Find(from.caller, from.bounds.high);
    if (known != kNoIndex) return known;
  }
  WalkStack(from.caller, from.bounds, &state->stack);
  LossId lost = LossId::kCount;
  const uint32_t stack = g_recorder.stacks.Find(&state->stack, state->stack_thread, &state->resolve, &lost);
  if (lost != LossId::kCount) {
    CountLoss(lost, bytes);
  } else if (from.own && __atomic_load_n(&g_recorder.stacks[stack].allocated_blocks, __ATOMIC_RELAXED) >= kOftenMet) {
    state->known.Remember(from.caller, state->stack, stack);
  }
  return stack;
}

void CountAllocation(uint32_t index, uint64_t bytes, uint64_t blocks, uint32_t tick) {
  Stack& stack = g_recorder.stacks[index];
  if (__atomic_load_n(&stack.allocated_blocks, __ATOMIC_RELAXED) == 0) stack.first_tick = tick;
  const auto add = CountsAlone(stack) ? AddAlone : Add;
  add(&stack.allocated_bytes, bytes);
  add(&stack.allocated_blocks, blocks);
  __atomic_store_n(&stack.last_tick, tick, __ATOMIC_RELAXED);
}

// How many blocks it stood for.
uint64_t CountFree(const Block& block) {
  Stack& stack = g_recorder.stacks[block.stack];
  const uint64_t blocks = recording::BlocksStoodFor(block);
  Add(&stack.freed_bytes, recording::BlockSize(block) * blocks);
  Add(&stack.freed_blocks, blocks);
  return blocks;
}

// The block at this address, when it is known, is out of the table.
bool Take(const void* address, Block* block) {
  const uint64_t at = reinterpret_cast<uint64_t>(address);
  if (SampleRate() != 0 && !g_recorder.blocks.MayHold(at)) return false;
  return g_recorder.blocks.Remove(at, block);
}

// From before the recording, nearly always. Of a sampled one most blocks are unknown.
void UnknownFreed(uint64_t address) {
  if (SampleRate() != 0) return;
  Add(&g_recorder.file.header()->unknown_frees, 1);
  OlderBufferFreed(address);
}

}  // namespace

void Allocated(const void* address, size_t bytes) {
  if (!IsRecording()) return;
  const Sampled sampled = Sample(bytes);
  if (!sampled.taken) return;
  g_recorder.blocks.Prefetch(reinterpret_cast<uint64_t>(address));
  const uint32_t stack = TakeStack(bytes);
  Block block;
  block.address = reinterpret_cast<uint64_t>(address);
  block.size_and_gc = recording::PackSizeAndGc(bytes, v8::CurrentMajorGcCount(), sampled.rate);
  block.stack = stack;
  block.birth_tick = TicksSinceStart();
  Block old;
  switch (g_recorder.blocks.Insert(block, &old)) {
    case BlockTable::InsertResult::kReplaced:
      CountFree(old);
      break;
    case BlockTable::InsertResult::kInserted:
      break;
    case BlockTable::InsertResult::kFull:
      CountLoss(LossId::kBlocksTableFull, bytes);
      return;
    case BlockTable::InsertResult::kLockTimeout:
      CountLoss(LossId::kLockTimeout, bytes);
      return;
  }
  const uint64_t blocks = recording::BlocksStoodFor(block);
  CountAllocation(stack, bytes * blocks, blocks, block.birth_tick);
  if (sampled.rate != 0) Add(&g_recorder.sampled, 1);
}

void Freeing(const void* address) {
  if (!IsRecording()) return;
  SeeFree();
  Block block;
  if (Take(address, &block)) {
    const uint64_t blocks = CountFree(block);
    CountIfConfirmed(block.stack, block.birth_tick, recording::BlockSize(block) * blocks, blocks);
  } else {
    UnknownFreed(reinterpret_cast<uint64_t>(address));
  }
}

void CollectionBegins() {
  if (!IsRecording() || SampleRate() != 0) return;
  ThreadState* state = CurrentThreadState();
  if (state == nullptr) return;
  const Beginning from = FindBeginning(*state, reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
  WalkStack(from.caller, from.bounds, &state->stack);
  g_recorder.stacks.Learn(state->stack, &state->resolve);
}

RemovedBlock TakeForRealloc(const void* address) {
  RemovedBlock removed = {};
  if (!IsRecording() || Take(address, &removed.block)) return removed;
  removed.block.address = 0;
  removed.unknown = reinterpret_cast<uint64_t>(address);
  return removed;
}

void PutBack(const RemovedBlock& removed) {
  Block old;
  if (removed.block.address != 0) g_recorder.blocks.Insert(removed.block, &old);
}

void Forget(const RemovedBlock& removed) {
  if (removed.block.address != 0) CountFree(removed.block);
  if (removed.unknown != 0 && IsRecording()) UnknownFreed(removed.unknown);
}

void Mapped(const MappingEvent& event) {
  if (!IsRecording()) return;
  const uint64_t bytes = (event.bytes + recording::kPageBytes - 1) & ~(recording::kPageBytes - 1);
  Range range = {};
  range.start = event.start;
  range.end = event.start + bytes;
  range.stack = TakeStack(bytes);
  range.birth_tick = TicksSinceStart();
  range.birth_gc = v8::CurrentMajorGcCount();
  range.flags = (event.file ? recording::kRangeFile : 0u) |
                ((event.map_flags & MAP_TYPE) == MAP_PRIVATE ? 0u : recording::kRangeShared) |
                ((event.map_flags & MAP_STACK) != 0 ? recording::kRangeThreadStack : 0u);
  range.protection = static_cast<uint32_t>(event.protection);
  if (!g_recorder.ranges.Insert(range)) {
    CountLoss(LossId::kRangesTableFull, bytes);
    return;
  }
  g_recorder.stacks[range.stack].flags |= recording::kStackMapping;
  CountAllocation(range.stack, bytes, 1, range.birth_tick);
}

void TakeMapping(uint64_t start, uint64_t bytes, TakenRanges* taken) {
  taken->count = 0;
  taken->start = start;
  taken->end = start + bytes;
  if (IsRecording() && !g_recorder.ranges.Take(start, start + bytes, taken)) CountLoss(LossId::kRangesTableFull, bytes);
}

void Unmapped(const TakenRanges& taken) { g_recorder.ranges.Forget(taken); }

void PutBack(const TakenRanges& taken) {
  if (!g_recorder.ranges.PutBack(taken)) CountLoss(LossId::kRangesTableFull, taken.end - taken.start);
}

void Remapped(const TakenRanges& taken, uint64_t new_start, uint64_t new_bytes) {
  if (!IsRecording() && taken.count == 0) return;
  Range added;
  if (!g_recorder.ranges.PutAt(taken, new_start, new_bytes, &added)) CountLoss(LossId::kRangesTableFull, new_bytes);
  if (added.end > added.start) CountAllocation(added.stack, added.end - added.start, 0, TicksSinceStart());
}

void MappedLike(uint64_t old_start, const MappingEvent& event) {
  if (!IsRecording()) return;
  MappingEvent mapped = event;
  Range old;
  if (g_recorder.ranges.Find(old_start, &old)) {
    mapped.protection = static_cast<int>(old.protection);
    mapped.map_flags = (old.flags & recording::kRangeShared) != 0 ? MAP_SHARED : MAP_PRIVATE;
    mapped.file = (old.flags & recording::kRangeFile) != 0;
  }
  Mapped(mapped);
}

void Protected(uint64_t start, uint64_t bytes, int protection) {
  if (!IsRecording()) return;
  if (!g_recorder.ranges.Protect(start, start + bytes, static_cast<uint32_t>(protection), TicksSinceStart(),
                                 v8::CurrentMajorGcCount())) {
    CountLoss(LossId::kRangesTableFull, 0);
  }
}

void BreakMoved(uint64_t bytes) {
  if (IsRecording()) g_recorder.file.header()->brk_bytes = bytes;
}

uint32_t ThreadWillStart(uint64_t start_routine) {
  return IsRecording() ? g_recorder.threads.WillStart(start_routine, TakeStack(0)) : kNoIndex;
}
void ThreadStarted(uint32_t thread_index) {
  if (IsRecording()) g_recorder.threads.Started(thread_index);
}
void ThreadEnding() { g_recorder.threads.Ending(); }

uint32_t IsolateRegistered(uint64_t address, bool main_isolate) {
  if (!IsRecording()) return kNoIndex;
  ThreadState* state = CurrentThreadState();
  if (!main_isolate) g_recorder.threads.BecameWorker();
  if (!g_recorder.isolate_lock.TryLock()) return kNoIndex;
  recording::Isolate isolate = {};
  isolate.thread = state != nullptr ? state->thread : kNoIndex;
  isolate.generation = static_cast<uint32_t>(g_recorder.isolates.count() + 1);
  isolate.address = address;
  isolate.registered_ns = NanosecondsSinceStart();
  const uint32_t index = g_recorder.isolates.Append(isolate);
  g_recorder.isolate_lock.Unlock();
  return index;
}

void IsolateDisposed(uint32_t index) {
  if (index == kNoIndex || g_recorder.file.header() == nullptr) return;
  recording::Isolate& isolate = g_recorder.isolates[index];
  isolate.disposed_ns = NanosecondsSinceStart();
}

void CollectionFinished(const GcEvent& event) {
  if (event.isolate == kNoIndex || !IsRecording()) return;
  recording::Isolate& isolate = g_recorder.isolates[event.isolate];
  constexpr uint32_t kScavenge = 1, kMinorMarkSweep = 2, kMarkCompact = 4;
  if ((event.v8_type & (kScavenge | kMinorMarkSweep)) != 0) {
    ++isolate.scavenges;
    isolate.scavenge_ns += event.duration_ns;
  } else if ((event.v8_type & kMarkCompact) != 0) {
    ++isolate.mark_compacts;
    isolate.mark_compact_ns += event.duration_ns;
    isolate.previous_mark_compact_ns = isolate.last_mark_compact_ns;
    isolate.last_mark_compact_ns = NanosecondsSinceStart();
    if (event.isolate == 0) g_recorder.file.header()->major_gcs = static_cast<uint32_t>(isolate.mark_compacts);
  } else {
    ++isolate.other_gcs;
    isolate.other_gc_ns += event.duration_ns;
  }
}

void LoopTurns(uint32_t index) {
  if (index == kNoIndex) return;
  recording::Isolate& isolate = g_recorder.isolates[index];
  if (isolate.loop_turns == 0) isolate.first_turn_ns = NanosecondsSinceStart();
  __atomic_store_n(&isolate.loop_turns, isolate.loop_turns + 1, __ATOMIC_RELAXED);
}

// Races with the watcher, which takes it: a reading may then count for the sample before.
void NoteHeapUsed(recording::Isolate* isolate, uint64_t used) {
  const uint64_t least = __atomic_load_n(&isolate->heap_used_least, __ATOMIC_RELAXED);
  if (least == 0 || used < least) __atomic_store_n(&isolate->heap_used_least, used, __ATOMIC_RELAXED);
}

void HeapUsedAfterCollection(uint32_t index, uint64_t used, bool full) {
  if (index == kNoIndex || !IsRecording()) return;
  recording::Isolate& isolate = g_recorder.isolates[index];
  NoteHeapUsed(&isolate, used);
  if (!full) return;
  isolate.heap_used_after_gc = used;
  isolate.after_gc_ns = NanosecondsSinceStart();
}

void HeapStatisticsRead(uint32_t index, const HeapStatistics& statistics) {
  if (index == kNoIndex || !IsRecording()) return;
  recording::Isolate& isolate = g_recorder.isolates[index];
  isolate.statistics_ns = NanosecondsSinceStart();
  isolate.heap_total = statistics.total;
  isolate.heap_physical = statistics.physical;
  isolate.heap_used = statistics.used;
  isolate.heap_limit = statistics.limit;
  isolate.malloced = statistics.malloced;
  isolate.peak_malloced = statistics.peak_malloced;
  isolate.external = statistics.external;
  isolate.external_told = statistics.external_told;
  isolate.global_handles = statistics.global_handles;
  isolate.native_contexts = statistics.native_contexts;
  isolate.detached_contexts = statistics.detached_contexts;
  NoteHeapUsed(&isolate, statistics.used);
}

void HeapSpaceRead(uint32_t isolate, const char* name, uint64_t size, uint64_t used, uint64_t available,
                   uint64_t physical) {
  if (isolate == kNoIndex || !IsRecording()) return;
  const recording::StringRef label = g_recorder.stacks.InternString(name, strlen(name));
  if (!g_recorder.isolate_lock.TryLock()) return;
  recording::HeapSpace space = {isolate, 0, label, size, used, available, physical};
  const uint64_t count = g_recorder.spaces.count();
  uint64_t index = 0;
  while (index < count &&
         (g_recorder.spaces[index].isolate != isolate || g_recorder.spaces[index].name.offset != label.offset))
    ++index;
  if (index < count) {
    g_recorder.spaces[index] = space;
  } else {
    g_recorder.spaces.Append(space);
  }
  g_recorder.isolate_lock.Unlock();
}

uint32_t AddGcAnswer(uint32_t isolate) {
  recording::GcAnswer answer = {};
  answer.isolate = isolate;
  return g_recorder.gc_answers.Append(answer);
}

void SetGcAnswer(uint32_t row, const recording::GcAnswer& answer) {
  if (!IsRecording() || row >= g_recorder.gc_answers.count()) return;  // asked in an earlier recording
  recording::GcAnswer& to = g_recorder.gc_answers[row];
  to = answer;
  to.ended_ns = NanosecondsSinceStart();
}

uint32_t* WatcherBell() { return &g_recorder.file.header()->mailbox.bell; }

void RingWatcher() {
  uint32_t* bell = WatcherBell();
  __atomic_add_fetch(bell, 1u, __ATOMIC_RELEASE);
  FutexWake(bell, FutexScope::kShared);
}

void UpdateTotals() {
  Header* header = g_recorder.file.header();
  const BlockTable::Totals live = g_recorder.blocks.Live();
  header->live_bytes = live.bytes;
  header->live_blocks = live.blocks;
  header->mapped_bytes = g_recorder.ranges.CommittedBytes();
}

void NoteBeforeEndGc() {
  if (!IsRecording()) return;
  SampleNow();  // its checkpoint tells, stack by stack, what the collection frees
  const BlockTable::Totals live = g_recorder.blocks.Live();
  Header* header = g_recorder.file.header();
  header->live_bytes_before_gc = live.bytes;
  header->live_blocks_before_gc = live.blocks;
}

void SetOtherAllocator() { g_recorder.file.header()->flags |= recording::kOtherAllocator; }

void SetGcAtEnd(recording::GcAtEnd state) {
  if (!IsRecording()) return;
  uint32_t& known = g_recorder.file.header()->gc_at_end;
  if (known != static_cast<uint32_t>(recording::GcAtEnd::kDone)) known = static_cast<uint32_t>(state);
}

namespace {
bool MoveFrozen(Frozen from, Frozen to) {
  auto expected = static_cast<uint32_t>(from);
  return __atomic_compare_exchange_n(&g_recorder.frozen, &expected, static_cast<uint32_t>(to), false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE);
}
}  // namespace

void Freeze(FreezeReason reason) {
  if (!IsRecording() || !MoveFrozen(Frozen::kNot, Frozen::kFrozen)) return;
  Header* header = g_recorder.file.header();
  StopPictures();
  SampleNow();
  __atomic_store_n(&g_recorder.control->recording, 0u, __ATOMIC_RELEASE);
  UpdateTotals();
  header->rss_at_freeze = ReadRssBytes();
  header->frozen_ns = NanosecondsSinceStart();
  // After abort our locks, and malloc's, may be held for good.
  if (reason != FreezeReason::kAbort) TakePicture(recording::PictureMoment::kEnd);
  header->freeze_reason = static_cast<uint32_t>(reason);
  __atomic_store_n(&header->state, static_cast<uint32_t>(recording::ProcessState::kFrozen), __ATOMIC_RELEASE);
  g_recorder.file.TrimReserve();
}

namespace {
// After the freeze too, but never in a forked child (its control page is wiped, and `frozen` alone does not tell).
bool OwnsRecording() {
  return g_recorder.control != nullptr &&
         (IsRecording() || __atomic_load_n(&g_recorder.frozen, __ATOMIC_RELAXED) != 0) &&
         g_recorder.file.header() != nullptr;
}
}  // namespace

void Thaw() {
  if (!OwnsRecording() || IsRecording()) return;
  Header* header = g_recorder.file.header();
  if (header->freeze_reason != static_cast<uint32_t>(FreezeReason::kAtExit)) return;
  if (!MoveFrozen(Frozen::kFrozen, Frozen::kThawing)) return;
  RestartPictures();
  header->gc_at_end = static_cast<uint32_t>(recording::GcAtEnd::kNotDone);
  header->confirmation = {.number = header->confirmation.number};
  header->live_bytes_before_gc = header->live_blocks_before_gc = 0;
  header->rss_at_freeze = 0;
  header->frozen_ns = 0;
  header->freeze_reason = static_cast<uint32_t>(FreezeReason::kNone);
  __atomic_store_n(&header->state, static_cast<uint32_t>(recording::ProcessState::kRecording), __ATOMIC_RELEASE);
  SetCapability(recording::CapabilityId::kAllocations, recording::CapabilityState::kDegraded,
                "it sent itself a signal that node expected to end it, and went on: what other threads allocated and "
                "freed in the moment between is not recorded");
  MoveFrozen(Frozen::kThawing, Frozen::kNot);
  __atomic_store_n(&g_recorder.control->recording, 1u, __ATOMIC_RELEASE);
  RingWatcher();
}

bool StayFrozen() {
  constexpr auto kForGood = static_cast<uint32_t>(Frozen::kForGood);
  return MoveFrozen(Frozen::kFrozen, Frozen::kForGood) ||
         __atomic_load_n(&g_recorder.frozen, __ATOMIC_ACQUIRE) == kForGood;
}

void SetExitCode(int code) {
  if (!OwnsRecording()) return;
  Header* header = g_recorder.file.header();
  header->exit_code = code & 0xff;
  header->ended_ns = NanosecondsSinceStart();
  __atomic_store_n(&header->state, static_cast<uint32_t>(recording::ProcessState::kEnded), __ATOMIC_RELEASE);
}

void SetEndSignal(int signal) {
  if (!OwnsRecording()) return;
  Header* header = g_recorder.file.header();
  header->end_signal = signal;
  header->ended_ns = NanosecondsSinceStart();
}

void WillExec() {
  if (!IsRecording()) return;
  UpdateTotals();
  Header* header = g_recorder.file.header();
  header->freeze_reason = static_cast<uint32_t>(FreezeReason::kExec);
  header->frozen_ns = NanosecondsSinceStart();
}

void ExecFailed() {
  if (!IsRecording()) return;
  Header* header = g_recorder.file.header();
  header->freeze_reason = static_cast<uint32_t>(FreezeReason::kNone);
  header->frozen_ns = 0;
}

void SetCapability(recording::CapabilityId id, recording::CapabilityState state, const char* why) {
  if (g_recorder.control == nullptr || g_recorder.file.header() == nullptr) return;
  recording::Capability& capability = g_recorder.file.header()->capabilities[static_cast<uint32_t>(id)];
  capability.why = why != nullptr ? g_recorder.stacks.InternString(why, strlen(why)) : recording::StringRef{0, 0};
  capability.state = static_cast<uint32_t>(state);
}

void SetVersions(const char* node_version, const char* v8_version) {
  if (g_recorder.control == nullptr || g_recorder.file.header() == nullptr) return;
  Header* header = g_recorder.file.header();
  if (node_version != nullptr)
    header->node_version = g_recorder.stacks.InternString(node_version, strlen(node_version));
  if (v8_version != nullptr) header->v8_version = g_recorder.stacks.InternString(v8_version, strlen(v8_version));
}

void ForkedChild() {
  ForgetOwnMemory();
  g_recorder.control = nullptr;
  g_recorder.file.Abandon();
  t_locals.state = nullptr;
}

}  // namespace nodeleak::preload
