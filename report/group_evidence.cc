#include "report/group_evidence.h"

#include <algorithm>

namespace nodeleak::report {
namespace {

using recording::Recording;

double Seconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }
double TickSeconds() { return SecondsOfTick(1); }

double LastApplicationAllocation(const Recording& recording, const std::vector<ClassifiedUse>& uses) {
  double last = 0;
  for (const ClassifiedUse& use : uses) {
    if (!use.site.has_value() || !use.use->owns_counters) continue;
    last = std::max(last, SecondsOfTick(recording.stacks[use.use->stack].last_tick) + TickSeconds());
  }
  return last;
}

size_t WindowOf(const Evidence& evidence, double seconds) {
  const double share = (seconds - evidence.begin_seconds) / (evidence.end_seconds - evidence.begin_seconds);
  const double window = share * static_cast<double>(kWindows);
  return static_cast<size_t>(std::clamp(window, 0.0, static_cast<double>(kWindows - 1)));
}

double EdgeOf(const Evidence& evidence, size_t window) {
  return evidence.begin_seconds +
         (evidence.end_seconds - evidence.begin_seconds) * static_cast<double>(window) / static_cast<double>(kWindows);
}

struct Span {
  double first = 0, last = 0;
};
Span AllocationSpan(const Recording& recording, const std::vector<const ClassifiedUse*>& members) {
  uint32_t first = UINT32_MAX, last = 0;
  for (const ClassifiedUse* member : members) {
    for (const Birth& birth : member->use->births) {
      first = std::min(first, birth.tick);
      last = std::max(last, birth.tick);
    }
    if (!member->use->owns_counters) continue;
    first = std::min(first, recording.stacks[member->use->stack].first_tick);
    last = std::max(last, recording.stacks[member->use->stack].last_tick);
  }
  if (first == UINT32_MAX) return {};
  return {SecondsOfTick(first), SecondsOfTick(last)};
}

// The period that the windows divide. When a group was active for most of its time and then fell silent (the load
// ended), its own last allocation ends it: silence at the end is no evidence either way.
void SetPeriod(const Timebase& timebase, Evidence* evidence) {
  constexpr double kMostOfItsTime = 0.5;
  evidence->begin_seconds = evidence->first_allocation_seconds;
  const double own_end = evidence->last_allocation_seconds + TickSeconds();
  double end = std::max(own_end, timebase.active_until_seconds());
  if (own_end - evidence->begin_seconds > kMostOfItsTime * (end - evidence->begin_seconds)) end = own_end;
  evidence->end_seconds = std::max(end, evidence->begin_seconds + TickSeconds());
}

void CountSurvivors(const std::vector<const ClassifiedUse*>& members, uint32_t major_gcs, Evidence* evidence) {
  std::vector<uint32_t> survived;
  for (const ClassifiedUse* member : members) {
    evidence->live_bytes += member->use->live_bytes;
    evidence->live_blocks += member->use->live_blocks;
    evidence->reserved_bytes += member->use->reserved_bytes;
    for (const Birth& birth : member->use->births) {
      Window& window = evidence->windows[WindowOf(*evidence, SecondsOfTick(birth.tick))];
      window.survivors += 1;
      window.survivor_bytes += birth.bytes;
      survived.push_back(major_gcs > birth.gc ? major_gcs - birth.gc : 0);
      if (survived.back() != 0) evidence->blocks_that_met_a_gc += birth.blocks;
    }
  }
  if (survived.empty()) return;
  std::sort(survived.begin(), survived.end());
  evidence->survived_gcs = {survived.front(), survived[survived.size() / 2], survived.back()};
}

void CountAllocations(const Recording& recording, const Timebase& timebase,
                      const std::vector<const ClassifiedUse*>& members, Evidence* evidence) {
  // Survivors are counted one by one; of sampled allocations so many as that stand for all.
  double survivors = 0;
  for (const Window& window : evidence->windows) survivors += static_cast<double>(window.survivors);
  const double share =
      evidence->live_blocks == 0 ? 1 : std::min(1.0, survivors / static_cast<double>(evidence->live_blocks));
  for (const ClassifiedUse* member : members) {
    if (!member->use->owns_counters) continue;
    const uint32_t stack = member->use->stack;
    evidence->allocations += recording.stacks[stack].allocated_blocks;
    for (size_t i = 0; i < kWindows; ++i) {
      evidence->windows[i].allocated += share * (timebase.AllocatedBy(stack, EdgeOf(*evidence, i + 1)) -
                                                 timebase.AllocatedBy(stack, EdgeOf(*evidence, i)));
    }
  }
  for (Window& window : evidence->windows) {
    window.allocated = std::max(window.allocated, static_cast<double>(window.survivors));
  }
}

bool IsOwnedByCollector(const std::vector<const ClassifiedUse*>& members) {
  return std::any_of(members.begin(), members.end(), [](const ClassifiedUse* member) {
    return member->kind == Kind::kArrayBuffer || member->kind == Kind::kWasmMemory || member->site.has_value();
  });
}

}  // namespace

Timebase::Timebase(const Recording& recording, const std::vector<ClassifiedUse>& uses)
    : recording_(recording), run_seconds_(Seconds(recording.process.duration_ns)) {
  const double last = LastApplicationAllocation(recording, uses);
  active_until_seconds_ = last > 0 ? std::min(last, run_seconds_) : run_seconds_;
  for (const recording::Checkpoint& checkpoint : recording.checkpoints) {
    checkpoint_seconds_.push_back(Seconds(checkpoint.time_ns));
    for (uint64_t i = 0; i < checkpoint.entry_count; ++i) {
      const recording::CheckpointEntry& entry = recording.checkpoint_entries[checkpoint.first_entry + i];
      std::vector<Point>& curve = curves_[entry.stack];
      const double blocks = static_cast<double>(entry.allocated_blocks);
      if (curve.empty() || (blocks >= curve.back().blocks && checkpoint_seconds_.back() > curve.back().seconds)) {
        curve.push_back({checkpoint_seconds_.back(), blocks});
      }
    }
  }
}

double Timebase::AllocatedBy(uint32_t stack_index, double seconds) const {
  const recording::Stack& stack = recording_.stacks[stack_index];
  const Point first = {SecondsOfTick(stack.first_tick), 0};
  const Point last = {SecondsOfTick(stack.last_tick) + TickSeconds(), static_cast<double>(stack.allocated_blocks)};
  if (seconds <= first.seconds) return 0;
  if (seconds >= last.seconds) return last.blocks;
  Point before = first, after = last;
  const auto curve = curves_.find(stack_index);
  if (curve != curves_.end()) {
    for (const Point& point : curve->second) {
      if (point.seconds <= before.seconds) continue;
      if (point.seconds > seconds) {
        if (point.seconds < after.seconds) after = point;
        break;
      }
      before = point;
    }
  }
  if (after.seconds <= before.seconds) return after.blocks;
  const double share = (seconds - before.seconds) / (after.seconds - before.seconds);
  return before.blocks + share * std::max(0.0, after.blocks - before.blocks);
}

Evidence CollectEvidence(const Recording& recording, const Timebase& timebase,
                         const std::vector<const ClassifiedUse*>& members) {
  Evidence evidence;
  const Span span = AllocationSpan(recording, members);
  evidence.first_allocation_seconds = span.first;
  evidence.last_allocation_seconds = span.last;
  // While a process runs on, its blocks can be younger than its last sign of life.
  evidence.run_seconds = std::max(timebase.run_seconds(), span.last);
  evidence.windows_measured = timebase.has_checkpoints();
  evidence.owned_by_collector = recording.process.IsNode() && IsOwnedByCollector(members);
  evidence.full_gc_at_end = recording.process.gc_at_end == recording::GcAtEnd::kDone;
  SetPeriod(timebase, &evidence);
  CountSurvivors(members, recording.totals.major_gcs, &evidence);
  CountAllocations(recording, timebase, members, &evidence);
  return evidence;
}

}  // namespace nodeleak::report
