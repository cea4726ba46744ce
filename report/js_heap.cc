#include "report/js_heap.h"

#include "absl/strings/str_cat.h"
#include "report/js_heap_curve.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

constexpr size_t kManyFullGcs = 4, kFewestReadings = 3;
constexpr double kShortestGrowth = 2, kApart = 0.4;  // seconds

std::string UsedSentence(const HeapCurve& curve) {
  const auto bytes = [](double used) { return FormatBytes(static_cast<uint64_t>(used)); };
  return absl::StrCat("alive in it: at most ", bytes(curve.AtMost(0)), " at ", FormatSeconds(curve.first.seconds), ", ",
                      bytes(curve.last().used), " at ", FormatSeconds(curve.last().seconds), " (",
                      Plural(curve.exact.size(), "full GC"), ")");
}

// Of full GCs: two that follow each other at once, as forced ones do, are one.
size_t MomentsOf(const HeapCurve& curve) {
  size_t moments = 0;
  double last = -kApart;
  for (const HeapPoint& reading : curve.exact) {
    if (reading.seconds < last + kApart) continue;
    last = reading.seconds;
    ++moments;
  }
  return moments;
}

void SetGrowth(const HeapCurve& curve, KindVerdict* heap) {
  heap->verdict = Verdict::kGrowing;
  heap->rate.bytes_per_second = static_cast<uint64_t>((curve.last().used - curve.AtMost(0)) / curve.seconds());
  heap->rate.from_seconds = curve.first.seconds;
  heap->rate.until_seconds = curve.last().seconds;
}

}  // namespace

KindVerdict JudgeJsHeap(const recording::Recording& recording) {
  KindVerdict heap;
  heap.kind = Kind::kV8Heap;
  const HeapCurve curve = HeapCurveOf(recording);
  if (curve.empty()) {
    heap.evidence.push_back("no full GC ran: what is used in the JavaScript heap may be garbage");
    return heap;
  }
  heap.confidence = curve.exact.size() >= kManyFullGcs ? Confidence::kHigh : Confidence::kLikely;
  if (curve.seconds() < kShortestGrowth) {
    heap.evidence.push_back("the run is too short to judge the JavaScript heap");
    heap.confidence = Confidence::kLow;
    return heap;
  }
  heap.evidence.push_back(UsedSentence(curve));
  const bool stops = IsSeenToStop(curve);
  if (!stops && RisesBeyondBounds(curve)) {
    SetGrowth(curve, &heap);
  } else if (!stops && RisesWithBounds(curve)) {
    heap.evidence.push_back("what collections left of it in between rises evenly");
    heap.confidence = Confidence::kLow;
    SetGrowth(curve, &heap);
  } else if (IsLittleMoreThanAtFirst(curve) || (stops && WasThereBefore(curve))) {
    heap.verdict = Verdict::kBounded;
    if (curve.exact.size() < kFewestReadings) heap.confidence = Confidence::kLow;
  } else {
    heap.evidence.push_back("garbage hides when it came: at the start, or ever since");
    heap.confidence = Confidence::kLow;
  }
  const bool runs_on = recording.process.ending == recording::Ending::kRunning;
  if (heap.verdict == Verdict::kGrowing && runs_on && MomentsOf(curve) < kFewestReadings) {
    heap.evidence.push_back("few full GCs, and the process runs on: a cache that still fills looks the same");
    heap.confidence = Confidence::kLow;
  }
  return heap;
}

}  // namespace nodeleak::report
