#include "report/collectors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "report/garbage.h"
#include "report/recording_facts.h"
#include "report/timebase.h"

namespace nodeleak::report {
namespace {

using recording::Isolate;
using recording::Recording;

std::string SiteKey(const ClassifiedUse& use) {
  return use.site.has_value() ? absl::StrCat(use.site->file, ":", use.site->line, ":", use.site->column) : "";
}

// By us: it has met the end of the run in a collection that began after ours had.
bool WasCollectedAtEnd(const Recording& recording, const Isolate& isolate) {
  return recording.process.gc_at_end == recording::GcAtEnd::kDone &&
         recording.confirmation.kind == static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd) &&
         isolate.last_mark_compact_ns >= recording.confirmation.begun_ns;
}

constexpr const char* kNotMet = "the collections of its thread are not known: it has not come to its event loop";

// V8 sweeps while the program runs on: what the collection found dead is freed some milliseconds after it. Before the
// next one is counted, all of that is done; between two that we force one after the other, it may not be.
bool WasCutInTheMidst(const Recording& recording, const Isolate& isolate) {
  const recording::Confirmation& forced = recording.confirmation;
  return forced.begun_ns != 0 && forced.ended_ns == 0 && isolate.last_mark_compact_ns >= forced.begun_ns;
}

constexpr const char* kCutInTheMidst =
    "the recording ends in the midst of a forced full GC, which has not freed all of the garbage yet";
constexpr const char* kWaitsForATurn =
    "an addon may free it in a finalizer, which no turn of the event loop after the full GC has run yet";

}  // namespace

Collectors::Collectors(const Recording& recording, const std::vector<ClassifiedUse>& uses) : recording_(recording) {
  if (!recording.process.IsNode()) return;
  ReadIsolates();
  ReadLastBeforeTheEnd();
  FindFinalizers(uses);
  CountWaiting(uses);
  CountMessages(uses);
}

void Collectors::ReadIsolates() {
  for (const Isolate& isolate : recording_.isolates) {
    Collector collector = {static_cast<uint32_t>(isolate.mark_compacts), SecondsOf(isolate.previous_mark_compact_ns),
                           HasLetGo(recording_, isolate), WasCollectedAtEnd(recording_, isolate)};
    if (WasCutInTheMidst(recording_, isolate)) collector = {.gone = collector.gone, .doubt = kCutInTheMidst};
    if (!main_.has_value()) main_ = collector;
    if (isolate.thread != recording::kNoIndex) by_thread_[isolate.thread] = collector;
  }
  // Without isolates (collections could not be watched) there is the header's count.
  const uint32_t gcs = recording_.totals.major_gcs;
  if (!main_.has_value()) main_ = Collector{gcs, gcs < 2 ? 0 : SecondsOf(recording_.process.duration_ns)};
}

void Collectors::ReadLastBeforeTheEnd() {
  if (recording_.process.gc_at_end != recording::GcAtEnd::kDone) return;
  Collector before;
  before.doubt = kWaitsForATurn;
  main_before_end_ = before;
  const recording::Checkpoint* at_end = FindCheckpointBeforeGc(recording_);
  if (at_end == nullptr || at_end->mark_compacts < 2) return;
  main_before_end_->full_gcs = at_end->mark_compacts;
  for (const recording::Checkpoint& checkpoint : recording_.checkpoints) {
    if (checkpoint.mark_compacts + 1 < at_end->mark_compacts) continue;
    main_before_end_->looked_until_seconds = SecondsOf(checkpoint.time_ns);
    return;
  }
}

void Collectors::FindFinalizers(const std::vector<ClassifiedUse>& uses) {
  for (const ClassifiedUse& use : uses) {
    if (use.addon_role == AddonRole::kNodeApi) sites_with_finalizers_[SiteKey(use)] += use.use->live_blocks;
  }
}

// Node allocates something of its own for each finalizer that the collection finds and that has to wait for a turn of
// the loop: what of node's was born since the collection began is as many as wait, or more.
void Collectors::CountWaiting(const std::vector<ClassifiedUse>& uses) {
  if (!main_before_end_.has_value()) return;
  const uint64_t begun_tick = recording_.confirmation.begun_ns / recording::kTickNanoseconds;
  for (const ClassifiedUse& use : uses) {
    if (use.kind == Kind::kV8Internal || use.kind == Kind::kV8Heap || use.addon_role == AddonRole::kOwner) continue;
    for (const Birth& birth : use.use->births) waiting_ += birth.tick >= begun_tick ? birth.blocks : 0;
  }
}

// Two to five blocks are of one finalizer.
bool Collectors::MostFinalizersHaveRun(uint64_t node_api_blocks) const {
  constexpr uint64_t kWhatever = 2, kShareThatMayWait = 40;
  return waiting_ <= kWhatever + node_api_blocks / kShareThatMayWait;
}

void Collectors::CountMessages(const std::vector<ClassifiedUse>& uses) {
  constexpr double kLongerThanAStart = 0.5;  // seconds; starting a worker posts some messages, too
  for (const ClassifiedUse& use : uses) {
    if (!use.is_message || !use.use->owns_counters) continue;
    const recording::Stack& stack = recording_.stacks[use.use->stack];
    const bool at_a_start = SecondsOfTick(stack.last_tick - stack.first_tick) < kLongerThanAStart;
    if (!at_a_start) message_blocks_ += stack.allocated_blocks;
  }
}

bool Collectors::WaitsForATurn(const ClassifiedUse& use) const {
  switch (use.addon_role) {
    case AddonRole::kNone:
      return false;
    case AddonRole::kUnknown:
      return true;
    case AddonRole::kNodeApi:
    case AddonRole::kOwner:
      const auto objects = sites_with_finalizers_.find(SiteKey(use));
      return objects != sites_with_finalizers_.end() && objects->second != 0 && !MostFinalizersHaveRun(objects->second);
  }
  return false;
}

// Reading a message with an array buffer allocates at least one block of bookkeeping.
bool Collectors::MayHaveBeenPosted(const ClassifiedUse& use) const {
  constexpr uint64_t kSharePosted = 4;  // of its blocks at least a quarter
  const bool can_go = use.kind == Kind::kArrayBuffer || (use.kind == Kind::kV8Internal && use.site.has_value());
  return can_go && by_thread_.size() > 1 && message_blocks_ > use.use->live_blocks / kSharePosted;
}

std::optional<Collector> Collectors::Of(const ClassifiedUse& use) const {
  if (!main_.has_value()) return std::nullopt;
  const auto own = by_thread_.find(ThreadOf(use));
  // JavaScript has run there, so there is an isolate.
  if (own == by_thread_.end() && !by_thread_.empty() && use.site.has_value()) return Collector{.doubt = kNotMet};
  Collector collector = own != by_thread_.end() ? own->second : *main_;
  const bool is_main = own == by_thread_.end() || own == by_thread_.begin();
  if (is_main && main_before_end_.has_value() && WaitsForATurn(use)) collector = *main_before_end_;
  if (!is_main && collector.collected_at_end && WaitsForATurn(use)) collector = {.doubt = kWaitsForATurn};
  if (collector.gone || !MayHaveBeenPosted(use)) return collector;
  for (const auto& [thread, other] : by_thread_) {
    // Counts of another isolate say nothing about a birth here: its last look alone does.
    if (other.gone || other.looked_until_seconds >= collector.looked_until_seconds) continue;
    collector.looked_until_seconds = other.looked_until_seconds;
    collector.doubt = "it may have been posted to another thread, which has not had a full GC since";
  }
  return collector;
}

}  // namespace nodeleak::report
