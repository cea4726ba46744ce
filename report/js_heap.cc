#include "report/js_heap.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "report/text_layout.h"
#include "report/timebase.h"

namespace nodeleak::report {
namespace {

constexpr size_t kFewestPoints = 3, kManyFullGcs = 4;
constexpr double kShortestGrowth = 2;     // seconds
constexpr double kLeastGrowth = 1 << 20;  // bytes, and
constexpr double kLeastShare = 0.1;       // of what there was at first
constexpr double kStillGrowing = 0.25;    // of the growth is in the later half of the time
constexpr double kNearHighest = 0.95;     // of the highest is what is left at the end
constexpr double kStepsUp = 0.7;
// The part that begins in the middle of the time has its least at its beginning, which may lie a reading before.
constexpr double kLaterBegins = 0.45;

// What was alive then: exactly, right after a full GC; at most so much, at other times.
struct Point {
  double seconds = 0, used = 0;
};

std::vector<Point> ReadingsAfterFullGcs(const recording::Recording& recording) {
  std::vector<Point> readings;
  uint64_t before = 0;
  for (const recording::TimelineSample& sample : recording.timeline) {
    if (sample.heap_used_after_gc == 0 || sample.heap_used_after_gc == before) continue;
    before = sample.heap_used_after_gc;
    readings.push_back({SecondsOf(sample.time_ns), static_cast<double>(before)});
  }
  return readings;
}

// A heap below V8's first limit is collected in full only at the end. Until then the least that was used in each part
// of the time bounds what was alive: growth beyond it is real.
std::vector<Point> PointsUntil(const recording::Recording& recording, const Point& last) {
  constexpr size_t kParts = 8;
  std::vector<Point> least(kParts);
  const double begin = recording.isolates.empty() ? 0 : SecondsOf(recording.isolates.front().first_turn_ns);
  if (begin >= last.seconds) return {last};
  for (const recording::TimelineSample& sample : recording.timeline) {
    const double seconds = SecondsOf(sample.time_ns);
    if (sample.heap_used == 0 || seconds < begin || seconds >= last.seconds) continue;
    Point& point = least[static_cast<size_t>((seconds - begin) / (last.seconds - begin) * kParts)];
    const auto used = static_cast<double>(sample.heap_used);
    if (point.used == 0 || used < point.used) point = {seconds, used};
  }
  std::erase_if(least, [](const Point& point) { return point.used == 0; });
  least.push_back(last);
  return least;
}

double UsedAt(const std::vector<Point>& points, double seconds) {
  for (size_t i = 1; i < points.size(); ++i) {
    if (points[i].seconds < seconds) continue;
    const double share = (seconds - points[i - 1].seconds) / (points[i].seconds - points[i - 1].seconds);
    return points[i - 1].used + share * (points[i].used - points[i - 1].used);
  }
  return points.back().used;
}

bool IsEnough(const std::vector<Point>& points) {
  return points.size() >= kFewestPoints && points.back().seconds - points.front().seconds >= kShortestGrowth;
}

bool HasRisen(const std::vector<Point>& points) {
  const double growth = points.back().used - points.front().used;
  return growth >= kLeastGrowth && growth >= kLeastShare * points.front().used;
}

bool IsMore(const std::vector<Point>& points, double used_later) {
  const Point first = points.front(), last = points.back();
  const double growth = last.used - first.used;
  return HasRisen(points) && last.used - used_later >= kStillGrowing * growth;
}

bool Grows(const std::vector<Point>& readings) {
  if (!IsEnough(readings)) return false;
  double highest = 0, up = 0;
  for (size_t i = 0; i < readings.size(); ++i) {
    highest = std::max(highest, readings[i].used);
    up += i > 0 && readings[i].used > readings[i - 1].used;
  }
  return IsMore(readings, UsedAt(readings, (readings.front().seconds + readings.back().seconds) / 2)) &&
         readings.back().used >= kNearHighest * highest && up >= kStepsUp * static_cast<double>(readings.size() - 1);
}

// More is alive at the end than can have been alive earlier, and than later.
bool GrowsBeyond(const std::vector<Point>& bounds) {
  if (!IsEnough(bounds)) return false;
  const double begin = bounds.front().seconds, time = bounds.back().seconds - begin;
  double later = bounds.back().used;
  for (const Point& bound : bounds) {
    const double share = (bound.seconds - begin) / time;
    if (share >= kLaterBegins && share <= 0.75) later = std::min(later, bound.used);
  }
  return IsMore(bounds, later);
}

std::string UsedSentence(const char* what, const Point& first, const Point& last, size_t full_gcs) {
  const auto bytes = [](double used) { return FormatBytes(static_cast<uint64_t>(used)); };
  return absl::StrCat(what, bytes(first.used), " at ", FormatSeconds(first.seconds), ", ", bytes(last.used), " at ",
                      FormatSeconds(last.seconds), " (", Plural(full_gcs, "full GC"), ")");
}

void SetGrowth(const Point& first, const Point& last, KindVerdict* heap) {
  heap->verdict = Verdict::kGrowing;
  heap->rate = {static_cast<uint64_t>((last.used - first.used) / (last.seconds - first.seconds)), 0, first.seconds,
                last.seconds};
}

}  // namespace

KindVerdict JudgeJsHeap(const recording::Recording& recording) {
  KindVerdict heap;
  heap.kind = Kind::kV8Heap;
  const std::vector<Point> readings = ReadingsAfterFullGcs(recording);
  if (readings.empty()) {
    heap.evidence.push_back("no full GC ran: what is used in the JavaScript heap may be garbage");
    return heap;
  }
  const std::vector<Point> bounds = PointsUntil(recording, readings.back());
  const Point& last = readings.back();
  heap.confidence = readings.size() >= kManyFullGcs ? Confidence::kHigh : Confidence::kLikely;
  if (Grows(readings)) {
    heap.evidence.push_back(UsedSentence("used after full GCs: ", readings.front(), last, readings.size()));
    SetGrowth(readings.front(), last, &heap);
  } else if (GrowsBeyond(bounds)) {
    heap.evidence.push_back(UsedSentence("alive in it: at most ", bounds.front(), last, readings.size()));
    SetGrowth(bounds.front(), last, &heap);
  } else if (IsEnough(readings)) {
    heap.evidence.push_back(UsedSentence("used after full GCs: ", readings.front(), last, readings.size()));
    heap.verdict = Verdict::kBounded;
  } else if (IsEnough(bounds)) {
    // Garbage hides what was alive between. More than at first may be a leak or a start: that is not known.
    heap.evidence.push_back(UsedSentence("alive in it: at most ", bounds.front(), last, readings.size()));
    if (!HasRisen(bounds)) heap.verdict = Verdict::kBounded;
    heap.confidence = Confidence::kLow;
  } else {
    heap.evidence.push_back("the run is too short to judge the JavaScript heap");
    heap.confidence = Confidence::kLow;
  }
  return heap;
}

}  // namespace nodeleak::report
