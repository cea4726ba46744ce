#include "preload/v8/collection.h"

#include "preload/base/futex.h"
#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/buffer_lists.h"
#include "preload/v8/event_loop.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/runtime.h"
#include "preload/v8/safe_point.h"

namespace nodeleak::preload::v8 {

using recording::GcAnswerState;
using recording::MailboxResult;

namespace {

// N-API calls finalizers from the check phase of the turn after the collection; what they release may take one more.
constexpr uint32_t kTurns = 2;
constexpr uint64_t kTurningNs = 1'000'000'000;      // for these turns; JavaScript that never yields has none
constexpr uint64_t kCollectingNs = 60'000'000'000;  // for what has begun
constexpr uint32_t kLookAgainMs = 20;
constexpr uint64_t kReachAtEndNs = 500'000'000, kCollectAtEndNs = 3'000'000'000;

uint64_t g_asked_ns, g_reach_until_ns, g_give_up_ns;
uint32_t g_collected_at_end;  // a futex: isolates that have

CollectionStep StepOf(const IsolateRecord& record) {
  return static_cast<CollectionStep>(__atomic_load_n(&record.collection.step, __ATOMIC_ACQUIRE));
}
bool Advance(IsolateRecord* record, CollectionStep from, CollectionStep to) {
  auto expected = static_cast<uint32_t>(from);
  return __atomic_compare_exchange_n(&record->collection.step, &expected, static_cast<uint32_t>(to), false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

bool IsForTheEnd(const IsolateRecord& record) { return record.collection.answer == recording::kNoIndex; }

// By whoever took the step to kNothing.
void Answer(IsolateRecord* record, GcAnswerState state) {
  Guard guard;
  if (!IsRecording()) return;  // whoever asked has stopped it
  if (IsForTheEnd(*record)) return;
  record->collection.progress.state = static_cast<uint32_t>(state);
  SetGcAnswer(record->collection.answer, record->collection.progress);
  RingWatcher();
}

void CollectFirst(IsolateRecord* record, Place place) {
  recording::GcAnswer& progress = record->collection.progress;
  progress.isolate = record->index;
  progress.by_interrupt = place == Place::kInterrupt ? 1 : 0;
  progress.waited_ns = MonotonicNanoseconds() - g_asked_ns;
  SetFreePhase(FreePhase::kGarbage);
  progress.first_pause_ns = CollectNow(record);
  SetFreePhase(FreePhase::kPending);
  record->collection.turning_since_ns = MonotonicNanoseconds();
  __atomic_store_n(&record->collection.step, static_cast<uint32_t>(CollectionStep::kTurning), __ATOMIC_RELEASE);
}

void CollectForTheEnd(IsolateRecord* record) {
  SetFreePhase(FreePhase::kGarbage);
  CollectNow(record);
  SetFreePhase(FreePhase::kOrdinary);
  ReadBufferListAfterGc(record);
  __atomic_store_n(&record->collection.step, static_cast<uint32_t>(CollectionStep::kNothing), __ATOMIC_RELEASE);
  __atomic_add_fetch(&g_collected_at_end, 1u, __ATOMIC_RELEASE);
  FutexWake(&g_collected_at_end);
}

void CollectAgain(IsolateRecord* record) {
  record->collection.progress.second_pause_ns = CollectNow(record);
  SetFreePhase(FreePhase::kOrdinary);
  ReadHeapStatistics(record);
  ReadBufferListAfterGc(record);
  __atomic_store_n(&record->collection.step, static_cast<uint32_t>(CollectionStep::kNothing), __ATOMIC_RELEASE);
  Answer(record, GcAnswerState::kDone);
}

// The watcher's side: what has taken too long.
void GiveUpLate(IsolateRecord* record, uint64_t now) {
  switch (StepOf(*record)) {
    case CollectionStep::kAsked:
      if (now < g_reach_until_ns) return WakeEventLoop(*record);
      if (Advance(record, CollectionStep::kAsked, CollectionStep::kNothing)) Answer(record, GcAnswerState::kNotReached);
      return;
    case CollectionStep::kTurning:
      if (now - record->collection.turning_since_ns < kTurningNs) return;
      if (Advance(record, CollectionStep::kTurning, CollectionStep::kNothing)) Answer(record, GcAnswerState::kOnce);
      return;
    default:
      return;
  }
}

void Ask(IsolateRecord* record) {
  uint32_t answer = AddGcAnswer(record->index);
  if (answer == recording::kNoIndex || StepOf(*record) != CollectionStep::kNothing) return;
  record->collection.answer = answer;
  record->collection.progress = {};
  record->collection.progress.isolate = record->index;
  __atomic_store_n(&record->collection.step, static_cast<uint32_t>(CollectionStep::kAsked), __ATOMIC_SEQ_CST);
  InterruptOnce(record);
  WakeEventLoop(*record);
}

void AskForTheEnd(IsolateRecord* record) {
  if (record->is_main || StepOf(*record) != CollectionStep::kNothing) return;
  record->collection.answer = recording::kNoIndex;
  __atomic_store_n(&record->collection.step, static_cast<uint32_t>(CollectionStep::kAsked), __ATOMIC_SEQ_CST);
  InterruptOnce(record);
  WakeEventLoop(*record);
}

// True when `record` has yet to do its part; one that has not begun by `reach_until_ns` need not any more.
bool IsAwaitedAtEnd(IsolateRecord* record, uint64_t now, uint64_t reach_until_ns) {
  if (!IsForTheEnd(*record)) return false;
  switch (StepOf(*record)) {
    case CollectionStep::kAsked:
      if (now >= reach_until_ns && Advance(record, CollectionStep::kAsked, CollectionStep::kNothing)) return false;
      WakeEventLoop(*record);
      return true;
    case CollectionStep::kCollecting:
      return true;
    default:
      return false;
  }
}

}  // namespace

void CollectWorkersAtEnd() {
  const uint64_t begun = MonotonicNanoseconds();
  {
    IsolatesHold hold;
    hold.ForEach(AskForTheEnd);
  }
  for (uint64_t now = begun; now < begun + kCollectAtEndNs; now = MonotonicNanoseconds()) {
    const uint32_t collected = __atomic_load_n(&g_collected_at_end, __ATOMIC_ACQUIRE);
    bool open = false;
    {
      IsolatesHold hold;
      hold.ForEach([now, begun, &open](IsolateRecord* record) {
        open = IsAwaitedAtEnd(record, now, begun + kReachAtEndNs) || open;
      });
    }
    if (!open) return;
    FutexWait(&g_collected_at_end, collected, kLookAgainMs);  // one that ends instead does not wake us
  }
}

uint64_t CollectNow(IsolateRecord* record) {
  uint64_t start = MonotonicNanoseconds();
  symbols().low_memory_notification(record->isolate);
  return MonotonicNanoseconds() - start;
}

void ServeCollection(IsolateRecord* record, Place place) {
  switch (StepOf(*record)) {
    case CollectionStep::kAsked:
      if (!Advance(record, CollectionStep::kAsked, CollectionStep::kCollecting)) return;
      if (IsForTheEnd(*record)) return CollectForTheEnd(record);
      CollectFirst(record, place);
      break;
    case CollectionStep::kTurning:
      if (place != Place::kOwnLoop) return;
      if (++record->collection.progress.turns < kTurns) break;
      if (Advance(record, CollectionStep::kTurning, CollectionStep::kCollectingAgain)) CollectAgain(record);
      return;
    default:
      return;
  }
  const bool in_own_loop = place == Place::kOwnLoop || place == Place::kOwnLoopAgain;
  if (in_own_loop) WakeEventLoop(*record);  // an idle loop would not turn by itself
}

void CollectionGone(IsolateRecord* record) {
  SetFreePhase(FreePhase::kOrdinary);
  if (Advance(record, CollectionStep::kAsked, CollectionStep::kNothing) ||
      Advance(record, CollectionStep::kTurning, CollectionStep::kNothing))
    Answer(record, GcAnswerState::kGone);
}

MailboxResult AskForCollections(uint32_t reach_ms) {
  if (!RuntimeStarted()) return MailboxResult::kNoV8;
  if (!HasFeature(Feature::kForcedGc)) return MailboxResult::kNoForcedGc;
  IsolatesHold hold;
  if (hold.main() == nullptr) return MailboxResult::kNoMainIsolate;
  g_asked_ns = MonotonicNanoseconds();
  g_reach_until_ns = g_asked_ns + uint64_t{reach_ms} * 1'000'000;
  g_give_up_ns = g_reach_until_ns + kCollectingNs;
  hold.ForEach(Ask);
  return MailboxResult::kDone;
}

uint32_t LookAfterCollections() {
  uint64_t now = MonotonicNanoseconds();
  if (now >= g_give_up_ns) return 0;
  bool open = false;
  IsolatesHold hold;
  hold.ForEach([now, &open](IsolateRecord* record) {
    GiveUpLate(record, now);
    open = open || StepOf(*record) != CollectionStep::kNothing;
  });
  return open || !hold.held() ? kLookAgainMs : 0;
}

}  // namespace nodeleak::preload::v8
