// The JavaScript heap is judged by what full GCs leave of it.
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/js_heap.h"

namespace nodeleak::report {
namespace {

// A reading each second, in MiB.
recording::Recording Heap(const std::vector<uint64_t>& used_after_gc) {
  recording::Recording recording;
  for (size_t i = 0; i < used_after_gc.size(); ++i) {
    recording.timeline.push_back({.time_ns = (i + 1) * 1'000'000'000, .heap_used_after_gc = used_after_gc[i] << 20});
  }
  return recording;
}
Verdict VerdictOf(const std::vector<uint64_t>& used) { return JudgeJsHeap(Heap(used)).verdict; }

TEST(JsHeap, GrowsWhenEachFullGcLeavesMore) {
  const KindVerdict heap = JudgeJsHeap(Heap({5, 9, 14, 18, 23, 27, 31}));
  EXPECT_EQ(heap.verdict, Verdict::kGrowing);
  EXPECT_EQ(heap.confidence, Confidence::kHigh);
  EXPECT_NEAR(static_cast<double>(heap.rate.bytes_per_second), 26.0 / 6 * (1 << 20), 1000);
  EXPECT_THAT(heap.evidence.front(), testing::HasSubstr("5.0 MiB at 1.00 s, 31.0 MiB at 7.00 s"));
}

TEST(JsHeap, AStartASawtoothAndACacheThatIsFullAreNoGrowth) {
  EXPECT_EQ(VerdictOf({5, 20, 30, 30, 31, 30, 31}), Verdict::kBounded);
  EXPECT_EQ(VerdictOf({5, 15, 25, 6, 16, 26, 7}), Verdict::kBounded);
  EXPECT_EQ(VerdictOf({40, 41, 42, 43, 42, 43}), Verdict::kBounded) << "less than a tenth of what it was";
}

// Raw readings, the last of them after the only full GC.
recording::Recording CollectedAtTheEnd(const std::vector<uint64_t>& used) {
  recording::Recording recording;
  for (size_t i = 0; i < used.size(); ++i) {
    recording.timeline.push_back({.time_ns = (i + 1) * 1'000'000'000, .heap_used = used[i] << 20});
  }
  recording.timeline.back().heap_used_after_gc = used.back() << 20;
  return recording;
}

TEST(JsHeap, WhatIsUsedEarlierBoundsWhatWasAlive) {
  const KindVerdict heap = JudgeJsHeap(CollectedAtTheEnd({5, 19, 8, 23, 12, 27, 16, 32, 20, 36, 24}));
  EXPECT_EQ(heap.verdict, Verdict::kGrowing);
  EXPECT_THAT(heap.evidence.front(), testing::HasSubstr("at most 5.0 MiB at 1.00 s, 24.0 MiB"));
}

TEST(JsHeap, GarbageUntilTheEndIsNoGrowth) {
  EXPECT_EQ(JudgeJsHeap(CollectedAtTheEnd({5, 9, 13, 17, 21, 25, 29, 33, 5})).verdict, Verdict::kBounded);
  EXPECT_EQ(JudgeJsHeap(CollectedAtTheEnd({5, 9, 13, 17, 21, 25, 29, 33, 6})).verdict, Verdict::kNew);
}

TEST(JsHeap, MoreThanAtFirstUnderMuchGarbageIsNotCalledBounded) {
  EXPECT_EQ(JudgeJsHeap(CollectedAtTheEnd({5, 19, 18, 23, 22, 27, 26, 32, 30, 36, 24})).verdict, Verdict::kNew);
}

TEST(JsHeap, WithoutAFullGcNothingIsSaid) {
  EXPECT_EQ(VerdictOf({}), Verdict::kNew);
  EXPECT_EQ(VerdictOf({5}), Verdict::kNew) << "too short";
}

}  // namespace
}  // namespace nodeleak::report
