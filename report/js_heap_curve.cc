#include "report/js_heap_curve.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "report/garbage.h"
#include "report/timebase.h"

namespace nodeleak::report {
namespace {

constexpr size_t kMiddle = kHeapParts / 2, kLastQuarter = kHeapParts * 3 / 4;
constexpr size_t kFewestReadings = 3;
constexpr double kMiB = 1 << 20;
constexpr double kLeastRise = kMiB;                                         // and
constexpr double kLeastShare = 0.1;                                         // of what there was at first
constexpr double kEarlier = 0.12, kLater = 0.25, kLastQuarterRises = 0.06;  // of the rise is in halves and quarter
constexpr double kAboveTheLine = 0.25, kBelowTheLine = 0.3, kOneGo = 0.7;   // of the rise
constexpr double kOutliers = 0.25;                      // of the readings: GCs in the midst of some large work
constexpr double kEarlyFrom = 0.35, kEarlyUntil = 0.7;  // of the time: what was there by then was there before
constexpr double kTight = 0.1;                          // of the rise at most is garbage in the last bound
constexpr double kLittle = 0.25 * kMiB, kLittleShare = 0.05;
// Along the bounds:
constexpr double kLeastProved = 0.5 * kMiB, kLeastProvedShare = 0.05;
constexpr double kBaseUntil = 0.3;                                         // of the time
constexpr double kEachHalf = 0.3, kLargestStep = 0.5, kLargestFall = 0.1;  // of the rise
constexpr double kLeastRatio = 0.5, kMostRatio = 1.5;
// A full GC that is asked for also drops what V8 compiled and cached, and garbage of node's own start.
constexpr double kForcedFreesMore = 0.7 * kMiB;

// When the forced GC began, or the end.
double EndOfBounds(const recording::Recording& recording) {
  const bool forced = recording.process.gc_at_end == recording::GcAtEnd::kDone;
  const recording::Checkpoint* before_gc = forced ? FindCheckpointBeforeGc(recording) : nullptr;
  return before_gc == nullptr ? std::numeric_limits<double>::infinity() : SecondsOf(before_gc->time_ns);
}

// Of several isolates only some may have had a full GC: then it is less than what is alive.
void ReadExact(const recording::Recording& recording, double end, HeapCurve* curve) {
  uint64_t before = 0;
  bool is_whole = true;
  for (const recording::TimelineSample& sample : recording.timeline) {
    if (sample.heap_used_after_gc == 0 || sample.heap_used_after_gc == before) continue;
    before = sample.heap_used_after_gc;
    if (curve->forced || !is_whole) curve->exact.pop_back();
    is_whole = sample.heap_used_least != 0 && sample.heap_used_least <= before;
    curve->forced = SecondsOf(sample.time_ns) > end;
    // A busy machine may take a second for ours: the program stood still from when it began.
    curve->exact.push_back({std::min(SecondsOf(sample.time_ns), end), static_cast<double>(before)});
  }
}

std::vector<HeapPoint> ReadBounds(const recording::Recording& recording) {
  std::vector<HeapPoint> bounds;
  const double begin = recording.isolates.empty() ? 0 : SecondsOf(recording.isolates.front().first_turn_ns);
  for (const recording::TimelineSample& sample : recording.timeline) {
    const double seconds = SecondsOf(sample.time_ns);
    if (sample.heap_used_least != 0 && seconds >= begin) {
      bounds.push_back({seconds, static_cast<double>(sample.heap_used_least)});
    }
  }
  return bounds;
}

void Divide(const std::vector<HeapPoint>& bounds, double end, HeapCurve* curve) {
  curve->part = {};
  for (const HeapPoint& bound : bounds) {
    if (bound.seconds < curve->first.seconds || bound.seconds >= std::min(curve->last().seconds, end)) continue;
    const double share = (bound.seconds - curve->first.seconds) / curve->seconds();
    HeapPoint& least = curve->part[static_cast<size_t>(share * kHeapParts)];
    if (least.used == 0 || bound.used < least.used) least = bound;
    curve->last_bound = bound.used;
  }
}

// A full GC that came early tells what was there without what had come and gone at the start.
bool FindBase(HeapCurve* curve) {
  const double until = curve->first.seconds + kBaseUntil * curve->seconds();
  for (const HeapPoint& reading : curve->exact) {
    if (reading.seconds <= until && reading.used < curve->last().used) {
      curve->first = reading;
      curve->starts_exact = true;
    }
  }
  return curve->starts_exact;
}

double Rise(const HeapCurve& curve) { return curve.last().used - curve.AtMost(0); }

// Not what goes up and down, nor what came in one go.
bool LiesAlongTheLine(const HeapCurve& curve, double rise) {
  double off = 0, between = 0;
  for (const HeapPoint& reading : curve.exact) {
    if (reading.seconds <= curve.first.seconds || reading.seconds >= curve.last().seconds) continue;
    const double share = (reading.seconds - curve.first.seconds) / curve.seconds();
    const double along = (reading.used - curve.AtMost(0)) / rise;
    off += along > share + kAboveTheLine || along < share - kBelowTheLine;
    between += 1;
  }
  return off <= kOutliers * between;
}

bool ComesInOneGo(const HeapCurve& curve) {
  double before = curve.AtMost(0), step_before = 0;
  for (size_t i = 1; i <= kHeapParts; ++i) {
    const double now = curve.AtMost(i);
    if (now - before + step_before > kOneGo * Rise(curve)) return true;
    step_before = now - before;
    before = now;
  }
  return false;
}

// A bound well above the end is garbage, and tells no more than that.
bool IsTight(const HeapCurve& curve) { return curve.last_bound - curve.last().used <= kTight * Rise(curve); }

// The bounds after `base`; nothing when parts are missing or it does not rise evenly.
std::optional<HeapPoint> LastOfAnEvenRise(const HeapCurve& curve, const HeapPoint& base) {
  const HeapPoint& last = curve.part.back();
  const double rise = last.used - base.used;
  HeapPoint before = base;
  double in_earlier_half = 0;
  for (const HeapPoint& point : curve.part) {
    if (point.used == 0) return std::nullopt;
    if (point.seconds <= base.seconds) continue;
    const double step = point.used - before.used;
    if (step > kLargestStep * rise || step < -kLargestFall * rise) return std::nullopt;
    if (point.seconds < (base.seconds + last.seconds) / 2) in_earlier_half += step;
    before = point;
  }
  const bool even = in_earlier_half >= kEachHalf * rise && in_earlier_half <= (1 - kEachHalf) * rise;
  return even ? std::optional(last) : std::nullopt;
}

double Rate(const HeapPoint& from, const HeapPoint& to) { return (to.used - from.used) / (to.seconds - from.seconds); }

}  // namespace

double HeapCurve::AtMost(size_t first_part) const {
  double least = starts_exact && first_part == 0 ? std::min(first.used, last().used) : last().used;
  for (size_t i = first_part; i < kHeapParts; ++i) {
    if (part[i].used != 0) least = std::min(least, part[i].used);
  }
  return least;
}

HeapCurve HeapCurveOf(const recording::Recording& recording) {
  HeapCurve curve;
  const double end = EndOfBounds(recording);
  ReadExact(recording, end, &curve);
  if (curve.empty()) return curve;
  const std::vector<HeapPoint> bounds = ReadBounds(recording);
  curve.first = bounds.empty() ? curve.last() : bounds.front();
  curve.last_bound = curve.last().used;
  Divide(bounds, end, &curve);
  if (FindBase(&curve)) Divide(bounds, end, &curve);
  const double late = curve.last().seconds + curve.seconds() / 4;
  for (const HeapPoint& bound : bounds) {
    if (bound.seconds > late && bound.seconds <= end && (curve.least_since == 0 || bound.used < curve.least_since)) {
      curve.least_since = bound.used;
    }
  }
  return curve;
}

bool IsLittleMoreThanAtFirst(const HeapCurve& curve) {
  return Rise(curve) < kLittle || Rise(curve) < kLittleShare * curve.AtMost(0);
}

bool IsMoreThanAtFirst(const HeapCurve& curve) {
  return Rise(curve) >= kLeastRise && Rise(curve) >= kLeastShare * curve.AtMost(0);
}

bool IsSeenToStop(const HeapCurve& curve) {
  const double rise = Rise(curve);
  const double last = curve.last().used + (curve.forced ? kForcedFreesMore : 0);
  if (curve.least_since != 0 && curve.least_since < curve.last().used + kLastQuarterRises * rise) return true;
  const bool is_known = curve.exact.size() >= kFewestReadings || IsTight(curve);
  if (is_known && last - curve.AtMost(kMiddle) < kLater * rise) return true;
  if (IsTight(curve) && last - curve.AtMost(kLastQuarter) < kLastQuarterRises * rise) return true;
  return curve.exact.size() >= kFewestReadings && !LiesAlongTheLine(curve, last - curve.AtMost(0));
}

bool WasThereBefore(const HeapCurve& curve) {
  const double rise = Rise(curve), last = curve.last().used;
  if (curve.least_since != 0 && curve.least_since < last + kLastQuarterRises * rise) return true;
  const double garbage = kTight * rise + (curve.forced ? kForcedFreesMore : 0);
  if (std::all_of(curve.part.begin() + kMiddle, curve.part.end(),
                  [&](const HeapPoint& point) { return point.used != 0 && point.used <= last + garbage; })) {
    return true;
  }
  size_t early = 0, as_much = 0;
  for (const HeapPoint& reading : curve.exact) {
    const double share = (reading.seconds - curve.first.seconds) / curve.seconds();
    if (share < kEarlyFrom || share > kEarlyUntil) continue;
    ++early;
    as_much += reading.used >= last - kLastQuarterRises * rise;
  }
  return early >= 2 && 2 * as_much >= early;
}

bool RisesBeyondBounds(const HeapCurve& curve) {
  const double rise = Rise(curve), middle = curve.AtMost(kMiddle);
  return IsMoreThanAtFirst(curve) && middle - curve.AtMost(0) >= kEarlier * rise &&
         curve.last().used - middle >= kLater * rise && LiesAlongTheLine(curve, rise) && !ComesInOneGo(curve);
}

bool RisesWithBounds(const HeapCurve& curve) {
  const HeapPoint base = curve.starts_exact ? curve.first : curve.part[1];  // nothing of the start is in it
  if (base.used == 0) return false;
  const double proved = curve.last().used - base.used;
  if (proved < kLeastProved || proved < kLeastProvedShare * base.used) return false;
  const std::optional<HeapPoint> bound = LastOfAnEvenRise(curve, base);
  if (!bound.has_value()) return false;
  HeapPoint last = curve.last();
  if (curve.forced) last.used += kForcedFreesMore;
  const double ratio = Rate(base, *bound) / Rate(base, last);
  return ratio >= kLeastRatio && ratio <= kMostRatio;
}

}  // namespace nodeleak::report
