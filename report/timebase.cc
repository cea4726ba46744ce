#include "report/timebase.h"

#include <algorithm>

#include "report/garbage.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

double EndOfRun(const Recording& recording) {
  const double end = SecondsOf(recording.process.duration_ns);
  if (recording.process.gc_at_end != recording::GcAtEnd::kDone) return end;
  const recording::Checkpoint* before_gc = FindCheckpointBeforeGc(recording);
  return before_gc == nullptr ? end : std::min(end, SecondsOf(before_gc->time_ns));
}

}  // namespace

Timebase::Timebase(const Recording& recording) : recording_(recording), run_seconds_(EndOfRun(recording)) {
  if (!recording.isolates.empty()) started_seconds_ = SecondsOf(recording.isolates.front().first_turn_ns);
  ReadCurves();
}

void Timebase::ReadCurves() {
  for (size_t k = 0; k < recording_.checkpoints.size(); ++k) {
    const recording::Checkpoint& checkpoint = recording_.checkpoints[k];
    const double seconds = SecondsOf(checkpoint.time_ns);
    for (uint64_t i = 0; i < checkpoint.entry_count; ++i) {
      const recording::CheckpointEntry& entry = recording_.checkpoint_entries[checkpoint.first_entry + i];
      std::vector<Point>& curve = curves_[entry.stack];
      const auto blocks = static_cast<double>(entry.allocated_blocks);
      if (curve.empty() || (blocks >= curve.back().blocks && seconds > curve.back().seconds)) {
        curve.push_back(
            {seconds, blocks, static_cast<double>(entry.allocated_bytes), k, static_cast<double>(entry.live_bytes)});
      }
    }
  }
}

double Timebase::TurnsBy(double seconds) const {
  double before_seconds = 0, before = 0;
  for (const recording::TimelineSample& sample : recording_.timeline) {
    const double at = SecondsOf(sample.time_ns);
    const auto turns = static_cast<double>(sample.loop_turns);
    if (at >= seconds) {
      return at <= before_seconds ? turns
                                  : before + (turns - before) * (seconds - before_seconds) / (at - before_seconds);
    }
    before_seconds = at;
    before = turns;
  }
  return before;
}

double Timebase::TurnsBetween(double begin, double end) const {
  if (recording_.timeline.size() < 2 || recording_.timeline.back().loop_turns == 0) return -1;
  return TurnsBy(end) - TurnsBy(begin);
}

Activity Timebase::ActivityAfter(double begin, double middle) const {
  constexpr double kFewTurns = 20;     // a start, a loop in JavaScript: not driven by events
  constexpr double kIdleShare = 0.25;  // of the rate before
  const double before = TurnsBetween(begin, middle), after = TurnsBetween(middle, run_seconds_);  // -1: not known
  if (before < kFewTurns) return Activity::kUnknown;
  const double rate_before = before / std::max(kTickSeconds, middle - begin);
  const double rate_after = after / std::max(kTickSeconds, run_seconds_ - middle);
  return rate_after < kIdleShare * rate_before ? Activity::kIdle : Activity::kActive;
}

std::vector<Timebase::Sum> Timebase::SumsOf(const std::vector<uint32_t>& stacks) const {
  std::vector<Sum> sums(recording_.checkpoints.size());
  for (size_t k = 0; k < sums.size(); ++k) sums[k].seconds = SecondsOf(recording_.checkpoints[k].time_ns);
  for (const uint32_t stack : stacks) {
    const auto curve = curves_.find(stack);
    if (curve == curves_.end()) continue;
    for (size_t i = 0; i < curve->second.size(); ++i) {
      const Point& point = curve->second[i];
      const size_t until = i + 1 < curve->second.size() ? curve->second[i + 1].checkpoint : sums.size();
      for (size_t k = point.checkpoint; k < until; ++k) {  // a checkpoint leaves out who did nothing
        sums[k].live_bytes += point.live_bytes;
        sums[k].allocated_blocks += point.blocks;
        sums[k].allocated_bytes += point.bytes;
      }
    }
  }
  return sums;
}

double Timebase::AllocatedBy(uint32_t stack_index, double seconds) const {
  const recording::Stack& stack = recording_.stacks[stack_index];
  const Point first = {SecondsOfTick(stack.first_tick), 0, 0, 0, 0};
  const Point last = {SecondsOfTick(stack.last_tick) + kTickSeconds, static_cast<double>(stack.allocated_blocks), 0, 0,
                      0};
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

}  // namespace nodeleak::report
