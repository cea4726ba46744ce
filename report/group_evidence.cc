#include "report/group_evidence.h"

#include <algorithm>
#include <array>
#include <limits>

namespace nodeleak::report {
namespace {

using recording::Recording;
using Members = std::vector<const ClassifiedUse*>;

constexpr double kForever = std::numeric_limits<double>::infinity();

// What looked at each member's blocks, in their order: asked once.
using Looks = std::vector<std::optional<Collector>>;

// A worker's memory that outlives the worker is nobody's garbage any more: its isolate has let go of everything.
double JudgedUntil(const std::optional<Collector>& collector) {
  if (!collector.has_value() || collector->gone) return kForever;
  return collector->looked_until_seconds;
}

bool WasSeen(const Birth& birth, const std::optional<Collector>& collector) {
  return !collector.has_value() || (collector->HasSeen(birth) && SecondsOfTick(birth.tick) <= JudgedUntil(collector));
}

struct Span {
  double first = kForever, last = 0;
  void Include(uint32_t first_tick, uint32_t last_tick) {
    first = std::min(first, SecondsOfTick(first_tick));
    last = std::max(last, SecondsOfTick(last_tick));
  }
};
Span AllocationSpan(const Recording& recording, const Members& members) {
  Span span;
  for (const ClassifiedUse* member : members) {
    for (const Birth& birth : member->use->births) span.Include(birth.tick, birth.tick);
    if (!member->use->owns_counters) continue;
    const recording::Stack& stack = recording.stacks[member->use->stack];
    span.Include(stack.first_tick, stack.last_tick);
  }
  if (span.first > span.last) return {0, 0};
  return span;
}

bool HasSite(const Members& members) {
  return std::any_of(members.begin(), members.end(), [](const ClassifiedUse* use) { return use->site.has_value(); });
}

std::vector<uint32_t> StacksOf(const Members& members) {
  std::vector<uint32_t> stacks;
  for (const ClassifiedUse* member : members) {
    if (member->use->owns_counters) stacks.push_back(member->use->stack);
  }
  return stacks;
}

// Between checkpoints that found something new: of what is freed by now, too.
double LongestPauseBetweenCheckpoints(const std::vector<Timebase::Sum>& sums) {
  double longest = 0;
  const Timebase::Sum* last_new = nullptr;
  for (size_t k = 0; k < sums.size(); ++k) {
    const double before = k == 0 ? 0 : sums[k - 1].allocated_blocks;
    if (sums[k].allocated_blocks <= before) continue;
    // What the later one found may have come right after the checkpoint before it.
    if (last_new != nullptr) longest = std::max(longest, sums[k - 1].seconds - last_new->seconds);
    last_new = &sums[k];
  }
  return longest;
}

double LongestPause(const Timebase& timebase, const Members& members) {
  std::vector<uint32_t> ticks;
  for (const ClassifiedUse* member : members) {
    for (const Birth& birth : member->use->births) ticks.push_back(birth.tick);
  }
  std::sort(ticks.begin(), ticks.end());
  uint32_t longest = 0;
  for (size_t i = 1; i < ticks.size(); ++i) longest = std::max(longest, ticks[i] - ticks[i - 1]);
  return std::max(SecondsOfTick(longest), LongestPauseBetweenCheckpoints(timebase.SumsOf(StacksOf(members))));
}

// What the windows divide. Node and its libraries allocate tables of their own while they start, so a group without a
// line of the application begins when the event loop has turned. When the program fell idle, its silence is no
// evidence: the group's own last allocation ends the period.
void SetPeriod(const Timebase& timebase, const Members& members, Evidence* evidence) {
  evidence->begin_seconds = evidence->first_allocation_seconds;
  if (!HasSite(members)) evidence->begin_seconds = std::max(evidence->begin_seconds, timebase.started_seconds());
  const double own_end = evidence->last_allocation_seconds + kTickSeconds;
  const double end = evidence->activity_after == Activity::kIdle ? own_end : evidence->run_seconds;
  evidence->end_seconds = std::max(end, evidence->begin_seconds + kTickSeconds);
}

// Of the blocks that were born in the period.
double SeenShare(const Looks& looks, const Members& members, const Evidence& evidence) {
  double seen = 0, all = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    for (const Birth& birth : members[i]->use->births) {
      if (SecondsOfTick(birth.tick) < evidence.begin_seconds) continue;
      all += 1;
      seen += WasSeen(birth, looks[i]);
    }
  }
  return all == 0 ? 1 : seen / all;
}

// Blocks that no full GC has looked at tell nothing. When it looked at most of the period, only that part is judged;
// otherwise all of it is, and what needs a GC to be said is not said.
void StopAtLastGc(const Looks& looks, const Members& members, Evidence* evidence) {
  constexpr double kEnough = 0.5, kEnoughBlocks = 0.3;
  double last_gc = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    last_gc = std::max(last_gc, JudgedUntil(looks[i]));
    if (looks[i].has_value() && members[i]->use->live_blocks != 0) evidence->doubt = looks[i]->doubt;
  }
  evidence->last_gc_seconds = std::min(last_gc, evidence->run_seconds);
  const double seen = last_gc - evidence->begin_seconds;
  evidence->seen_by_gc = seen >= kEnough * (evidence->end_seconds - evidence->begin_seconds) && seen > 0 &&
                         SeenShare(looks, members, *evidence) >= kEnoughBlocks;
  if (evidence->seen_by_gc) evidence->end_seconds = std::min(evidence->end_seconds, last_gc);
}

size_t WindowOf(const Evidence& evidence, double seconds) {
  const double share = (seconds - evidence.begin_seconds) / (evidence.end_seconds - evidence.begin_seconds);
  return static_cast<size_t>(std::clamp(share * static_cast<double>(kWindows), 0.0, static_cast<double>(kWindows - 1)));
}

double EdgeOf(const Evidence& evidence, size_t window) {
  return evidence.begin_seconds +
         (evidence.end_seconds - evidence.begin_seconds) * static_cast<double>(window) / static_cast<double>(kWindows);
}

std::array<double, 3> TurnsOfThirds(const Timebase& timebase, const Evidence& evidence) {
  std::array<double, 3> turns = {};
  for (size_t i = 0; i < turns.size(); ++i) {
    turns[i] = timebase.TurnsBetween(EdgeOf(evidence, i * kThird), EdgeOf(evidence, (i + 1) * kThird));
  }
  return turns;
}

void CountSurvivors(const Looks& looks, const Members& members, Evidence* evidence) {
  std::vector<uint32_t> survived;
  for (size_t i = 0; i < members.size(); ++i) {
    const ClassifiedUse* member = members[i];
    const std::optional<Collector>& collector = looks[i];
    evidence->live_bytes += member->use->live_bytes;
    evidence->live_blocks += member->use->live_blocks;
    evidence->reserved_bytes += member->use->reserved_bytes;
    for (const Birth& birth : member->use->births) {
      const uint32_t gcs = collector.has_value() ? collector->full_gcs : 0;
      survived.push_back(gcs > birth.gc ? gcs - birth.gc : 0);
      const double seconds = SecondsOfTick(birth.tick);
      if (seconds < evidence->begin_seconds) {
        evidence->blocks_of_the_start += birth.blocks;
        continue;
      }
      if (evidence->seen_by_gc && !WasSeen(birth, collector)) continue;
      Window& window = evidence->windows[WindowOf(*evidence, seconds)];
      window.survivors += 1;
      window.survivor_blocks += birth.blocks;
      window.survivor_bytes += birth.bytes;
    }
  }
  if (survived.empty()) return;
  std::sort(survived.begin(), survived.end());
  evidence->survived_gcs = {survived.front(), survived[survived.size() / 2], survived.back()};
}

// Survivors are counted one by one: of sampled allocations, so many as that stand for all.
double CountedShare(const Members& members) {
  uint64_t counted = 0, stood_for = 0;
  for (const ClassifiedUse* member : members) {
    counted += member->use->births.size();
    stood_for += member->use->live_blocks;
  }
  return stood_for == 0 ? 1 : std::min(1.0, static_cast<double>(counted) / static_cast<double>(stood_for));
}

void CountAllocations(const Recording& recording, const Timebase& timebase, const Looks& looks, const Members& members,
                      Evidence* evidence) {
  const double share = CountedShare(members);
  for (size_t m = 0; m < members.size(); ++m) {
    if (!members[m]->use->owns_counters) continue;
    const uint32_t stack = members[m]->use->stack;
    const double until = evidence->seen_by_gc ? JudgedUntil(looks[m]) : kForever;
    evidence->allocations += recording.stacks[stack].allocated_blocks;
    double before = timebase.AllocatedBy(stack, std::min(until, evidence->begin_seconds));
    for (size_t i = 0; i < kWindows; ++i) {
      const double now = timebase.AllocatedBy(stack, std::min(until, EdgeOf(*evidence, i + 1)));
      evidence->windows[i].allocated += share * (now - before);
      before = now;
    }
  }
  const bool nothing_freed = evidence->live_blocks >= evidence->allocations;  // then the births are the allocations
  for (Window& window : evidence->windows) {
    const auto survivors = static_cast<double>(window.survivors);
    window.allocated = nothing_freed ? survivors : std::max(window.allocated, survivors);
  }
}

void AddCheckpoints(const std::vector<Timebase::Sum>& sums, const Evidence& evidence, Trend* trend) {
  std::array<bool, kTrendParts> has = {};
  std::array<double, kTrendParts> bytes = {};
  const double part = (evidence.end_seconds - evidence.begin_seconds) / kTrendParts;
  Timebase::Sum before;
  double all_blocks = 0;
  for (const Timebase::Sum& sum : sums) {
    if (sum.seconds >= evidence.begin_seconds && sum.seconds < evidence.end_seconds) {
      const size_t i = std::min(kTrendParts - 1, static_cast<size_t>((sum.seconds - evidence.begin_seconds) / part));
      trend->blocks[i] += sum.allocated_blocks - before.allocated_blocks;
      all_blocks += sum.allocated_blocks - before.allocated_blocks;
      bytes[i] += sum.allocated_bytes - before.allocated_bytes;
      trend->alive.push_back({all_blocks, sum.live_bytes});
      has[i] = true;
    }
    before = sum;
  }
  trend->is_measured = true;
  for (size_t i = 0; i < kTrendParts; ++i) {
    if (!has[i] || trend->blocks[i] < 1) trend->is_measured = false;
    if (trend->blocks[i] >= 1) trend->mean_bytes[i] = bytes[i] / trend->blocks[i];
  }
  for (Alive& moment : trend->alive) moment.at /= std::max(1.0, all_blocks);
}

std::vector<Step> StepsOf(const std::vector<Timebase::Sum>& sums, double begin_seconds) {
  std::vector<Step> steps;
  Timebase::Sum before;
  for (const Timebase::Sum& sum : sums) {
    const double blocks = sum.allocated_blocks - before.allocated_blocks;
    if (blocks < 1) continue;
    AddStep({sum.seconds - begin_seconds, blocks, (sum.allocated_bytes - before.allocated_bytes) / blocks}, &steps);
    before = sum;
  }
  return steps;
}

Trend TrendOf(const Timebase& timebase, const Members& members, const Evidence& evidence) {
  Trend trend;
  const std::vector<uint32_t> stacks = StacksOf(members);
  if (stacks.size() != members.size()) return trend;  // of mappings and the like checkpoints know nothing
  const std::vector<Timebase::Sum> sums = timebase.SumsOf(stacks);
  AddCheckpoints(sums, evidence, &trend);
  trend.steps = StepsOf(sums, evidence.first_allocation_seconds);
  for (const Window& window : evidence.windows) {
    trend.kept_blocks += static_cast<double>(window.survivor_blocks);
    trend.kept_bytes += static_cast<double>(window.survivor_bytes);
  }
  for (const ClassifiedUse* member : members) {
    for (const Birth& birth : member->use->births) {
      const double each = static_cast<double>(birth.bytes) / static_cast<double>(birth.blocks);
      trend.largest_bytes = std::max(trend.largest_bytes, each);
    }
  }
  return trend;
}

}  // namespace

Evidence CollectEvidence(const Recording& recording, const Timebase& timebase, const Collectors& collectors,
                         const Members& members) {
  Evidence evidence;
  const Span span = AllocationSpan(recording, members);
  evidence.first_allocation_seconds = span.first;
  evidence.last_allocation_seconds = span.last;
  // While a process runs on, its blocks can be younger than its last sign of life.
  evidence.run_seconds = std::max(timebase.run_seconds(), span.last);
  evidence.runs_on = recording.process.ending == recording::Ending::kRunning;
  evidence.longest_pause_seconds = LongestPause(timebase, members);
  evidence.turns = timebase.TurnsBetween(std::max(span.first, timebase.started_seconds()), span.last);
  evidence.kind = members.front()->kind;
  evidence.activity_after = timebase.ActivityAfter(span.first, span.last);
  evidence.windows_measured = timebase.has_checkpoints();
  evidence.owned_by_collector = recording.process.IsNode();
  evidence.application_site = HasSite(members);
  SetPeriod(timebase, members, &evidence);
  Looks looks;
  looks.reserve(members.size());
  for (const ClassifiedUse* member : members) looks.push_back(collectors.Of(*member));
  StopAtLastGc(looks, members, &evidence);
  evidence.turns_of_thirds = TurnsOfThirds(timebase, evidence);
  CountSurvivors(looks, members, &evidence);
  CountAllocations(recording, timebase, looks, members, &evidence);
  evidence.trend = TrendOf(timebase, members, evidence);
  return evidence;
}

}  // namespace nodeleak::report
