// The JavaScript heap is judged by what collections left of it.
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/js_heap.h"

namespace nodeleak::report {
namespace {

constexpr double kMiB = 1 << 20;

// A sample each half second, in MiB: the least that was used, after collections of the young unless said otherwise.
class HeapOverTime {
 public:
  HeapOverTime& Young(const std::vector<double>& used) {
    for (const double mib : used) Add(mib);
    return *this;
  }
  HeapOverTime& Full(const std::vector<double>& used) {
    for (const double mib : used) {
      after_gc_ = static_cast<uint64_t>(mib * kMiB);
      Add(mib);
    }
    return *this;
  }
  // Ours, at the end.
  HeapOverTime& Forced(double mib) {
    recording_.process.gc_at_end = recording::GcAtEnd::kDone;
    recording_.checkpoints.push_back({.time_ns = recording_.timeline.back().time_ns + 1});
    return Full({mib});
  }
  HeapOverTime& RunsOn() {
    recording_.process.ending = recording::Ending::kRunning;
    return *this;
  }
  // Of one of two isolates.
  HeapOverTime& FullOfOne(double of_one, double both) {
    after_gc_ = static_cast<uint64_t>(of_one * kMiB);
    Add(both);
    return *this;
  }
  KindVerdict Judge() const { return JudgeJsHeap(recording_); }
  Verdict Word() const { return Judge().verdict; }

 private:
  void Add(double mib) {
    recording_.timeline.push_back({.time_ns = (recording_.timeline.size() + 1) * 500'000'000,
                                   .heap_used_after_gc = after_gc_,
                                   .heap_used_least = static_cast<uint64_t>(mib * kMiB)});
  }

  recording::Recording recording_;
  uint64_t after_gc_ = 0;
};

TEST(JsHeap, GrowsWhenEachFullGcLeavesMore) {
  const KindVerdict heap = HeapOverTime().Full({5, 7, 9, 11, 13.5, 16, 18, 20.5, 23, 25, 27, 29, 31}).Judge();
  EXPECT_EQ(heap.verdict, Verdict::kGrowing);
  EXPECT_EQ(heap.confidence, Confidence::kHigh);
  EXPECT_GT(heap.rate.bytes_per_second, 4.0 * kMiB);
  EXPECT_THAT(heap.evidence.front(), testing::HasSubstr("31.0 MiB at 6.50 s (13 full GCs)"));
}

TEST(JsHeap, AFullGcInTheMidstOfLargeWorkHidesNoGrowth) {
  EXPECT_EQ(HeapOverTime().Full({5, 7, 9, 11, 24, 16, 18, 20.5, 23, 25, 27, 29, 31}).Word(), Verdict::kGrowing);
}

TEST(JsHeap, FewFullGcsOfAProcessThatRunsOnAreDoubtful) {
  const std::vector<double> young = {5, 7, 8, 10, 12, 13, 16, 18, 20, 22};
  EXPECT_EQ(HeapOverTime().Young(young).Full({24}).Judge().confidence, Confidence::kLikely);
  const KindVerdict running = HeapOverTime().Young(young).Full({24}).RunsOn().Judge();
  EXPECT_EQ(running.verdict, Verdict::kGrowing);
  EXPECT_EQ(running.confidence, Confidence::kLow);
  EXPECT_THAT(running.evidence.back(), testing::HasSubstr("a cache that still fills"));
  EXPECT_EQ(HeapOverTime().Full({5, 7, 9, 11, 13, 15, 17, 19}).RunsOn().Judge().confidence, Confidence::kHigh);
}

TEST(JsHeap, AStartASawtoothAndACacheThatIsFullAreNoGrowth) {
  EXPECT_EQ(HeapOverTime().Full({5, 12, 20, 26, 30, 30, 31, 30, 31, 30, 31}).Word(), Verdict::kBounded);
  EXPECT_EQ(HeapOverTime().Full({5, 10, 15, 20, 25, 6, 11, 16, 21, 26, 7, 12}).Word(), Verdict::kBounded);
  EXPECT_EQ(HeapOverTime().Full({40, 41, 42, 43, 42, 43, 42, 43}).Word(), Verdict::kBounded);
}

TEST(JsHeap, GrowthBeyondAllBoundsNeedsOneFullGc) {
  const KindVerdict heap = HeapOverTime().Young({5, 7, 8, 10, 12, 13, 16, 18, 20, 22}).Full({24}).Judge();
  EXPECT_EQ(heap.verdict, Verdict::kGrowing);
  EXPECT_THAT(heap.evidence.front(), testing::HasSubstr("at most 5.0 MiB at 0.50 s, 24.0 MiB at 5.50 s"));
}

TEST(JsHeap, ALeakUnderMuchYoungGarbageShowsInWhatCollectionsOfTheYoungLeave) {
  EXPECT_EQ(HeapOverTime().Young({4.3, 4.6, 4.8, 5, 5.2, 5.5, 5.7, 5.9, 6.1}).Forced(5.3).Word(), Verdict::kGrowing)
      << "the full GC at the end frees what V8 had compiled, too";
}

TEST(JsHeap, OldGarbageIsNoGrowth) {
  EXPECT_EQ(HeapOverTime().Young({4.3, 4.8, 5.4, 6, 6.6, 7.2, 7.7, 8.3, 9}).Forced(3.8).Word(), Verdict::kBounded);
  EXPECT_EQ(HeapOverTime().Young({4.3, 6, 8, 10, 12, 13.5, 15, 16, 17}).Forced(8).Word(), Verdict::kNew)
      << "a cache that was full soon";
}

TEST(JsHeap, WhatComesInOneGoIsNoGrowth) {
  EXPECT_EQ(HeapOverTime().Young({4.3, 4.4, 4.4, 4.5, 4.5, 10, 15, 15, 15, 15}).Full({14.5}).Word(), Verdict::kBounded);
  EXPECT_EQ(HeapOverTime().Young({4.3, 4.4, 4.4, 4.5, 4.5, 9, 15, 15, 15, 15}).Full({15.5}).Word(), Verdict::kBounded);
}

TEST(JsHeap, AFullGcOfOneIsolateIsNotTakenForAll) {
  EXPECT_EQ(HeapOverTime().Young({9, 10}).FullOfOne(6, 11).Young({12, 13, 14, 15, 16, 17}).Full({18}).Word(),
            Verdict::kGrowing);
}

TEST(JsHeap, GarbageUntilTheEndIsNoGrowth) {
  EXPECT_EQ(HeapOverTime().Young({5, 9, 13, 17, 21, 25, 29, 33}).Full({5}).Word(), Verdict::kBounded);
}

TEST(JsHeap, MoreThanAtFirstUnderMuchGarbageIsNotCalledBounded) {
  EXPECT_EQ(HeapOverTime().Young({5, 30, 31, 40, 42, 44, 46, 48}).Full({24}).Word(), Verdict::kNew);
}

TEST(JsHeap, WhatCameSinceTheLastFullGcIsLookedAt) {
  EXPECT_EQ(HeapOverTime().Young({5, 7, 8, 10, 12, 14, 16}).Full({18}).Young({18, 18, 18, 18}).Word(),
            Verdict::kBounded);
  EXPECT_EQ(HeapOverTime().Young({5, 7, 8, 10, 12, 14, 16}).Full({18}).Young({20, 22, 24, 26}).Word(),
            Verdict::kGrowing);
}

TEST(JsHeap, ALongForcedGcAtTheEndIsNoTimeWithoutGrowth) {
  EXPECT_EQ(HeapOverTime().Young({4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8}).Forced(7.6).Young({7.6, 7.6, 7.6, 7.6}).Word(),
            Verdict::kGrowing);
}

TEST(JsHeap, WhatMayHaveBeenGarbageIsNotSaidToHaveBeenThere) {
  // A leak from 4 to 10.6 under garbage; V8 has done its first full GC shortly before the end.
  EXPECT_EQ(HeapOverTime().Young({4, 7.2, 9, 12, 16, 17, 20, 22, 26, 30, 31}).Full({11}).Forced(10.6).Word(),
            Verdict::kNew);
  // A leak from 4 to 7.7, with half-built work in what full GCs left.
  EXPECT_EQ(HeapOverTime()
                .Full({8.6, 7.1, 5.3, 5.6, 6.8, 6.9, 7, 7.2, 9.2, 7.6})
                .Young({8.2, 8.5, 8.8, 9, 9.5})
                .Forced(7.7)
                .Word(),
            Verdict::kNew);
}

TEST(JsHeap, WithoutAFullGcNothingIsSaid) {
  EXPECT_EQ(HeapOverTime().Young({5, 9, 13, 17, 21, 25}).Word(), Verdict::kNew);
  EXPECT_EQ(HeapOverTime().Full({5}).Word(), Verdict::kNew) << "too short";
}

}  // namespace
}  // namespace nodeleak::report
