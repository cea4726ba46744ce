#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "report/trend.h"

namespace nodeleak::report {
namespace {

Trend BlockOf(const std::function<double(double)>& bytes) {
  Trend trend = {.is_measured = true, .kept_blocks = 1, .kept_bytes = bytes(1), .largest_bytes = bytes(1)};
  for (size_t i = 0; i < kTrendParts; ++i) trend.mean_bytes[i] = bytes(static_cast<double>(i) / kTrendParts);
  trend.blocks.fill(50);
  return trend;
}

TEST(Trend, ABlockThatIsReplacedByEverLargerOnesGrows) {
  EXPECT_TRUE(IsGrowingBlock(BlockOf([](double share) { return 1e6 * (share + 0.06); })));
}

TEST(Trend, OptimizedCodeMayKeepAnEarlyOne) {
  Trend trend = BlockOf([](double share) { return 1e6 * (share + 0.06); });
  trend.kept_blocks = 2;
  trend.kept_bytes += 50021;
  EXPECT_TRUE(IsGrowingBlock(trend));
}

TEST(Trend, BlocksOfAnySizeDoNot) {
  EXPECT_FALSE(IsGrowingBlock(BlockOf([](double share) { return 1e6 * (0.5 + std::fmod(7.7 * share, 0.5)); })));
  EXPECT_FALSE(IsGrowingBlock(BlockOf([](double) { return 1e6; })));
  EXPECT_FALSE(IsGrowingBlock(BlockOf([](double share) { return share == 1 ? 1e6 : 50021; })));
}

// Found by checkpoints a third of a second apart; `came` in MiB at which second.
Trend DoublingOf(const std::vector<std::pair<double, double>>& came) {
  Trend trend;
  for (const auto& [seconds, mib] : came) trend.steps.push_back({std::ceil(3 * seconds) / 3, 1, mib * (1 << 20)});
  trend.steps.front().blocks = 8;
  return trend;
}

TEST(Trend, AnArrayThatDoublesWhenItIsFullGrows) {
  const Trend trend = DoublingOf({{0.1, 0.06}, {0.4, 0.5}, {0.75, 1}, {1.5, 2}, {3, 4}});
  EXPECT_TRUE(IsDoublingBlock(trend, 4.6));
  EXPECT_FALSE(IsDoublingBlock(trend, 8));  // the next one has long been due
}

TEST(Trend, TwoDoublingsBetweenTheSameCheckpointsAreTwoSteps) {
  Trend trend = DoublingOf({{0.1, 0.06}, {0.2, 0.25}});
  const double before = trend.steps.back().mean_bytes;
  AddStep({0.95, 2, 3 * before}, &trend.steps);  // of twice and of four times that
  AddStep({1.6, 1, 8 * before}, &trend.steps);
  AddStep({3.1, 1, 16 * before}, &trend.steps);
  ASSERT_EQ(trend.steps.size(), 6u);
  EXPECT_DOUBLE_EQ(trend.steps[2].mean_bytes, 2 * before);
  EXPECT_TRUE(IsDoublingBlock(trend, 4.6));
  AddStep({4, 2, 16 * before}, &trend.steps);  // of one size
  EXPECT_EQ(trend.steps.size(), 7u);
  EXPECT_FALSE(IsDoublingBlock(trend, 4.6));
}

TEST(Trend, AnArrayThatIsFilledAtOnceOrAnewDoesNotGrow) {
  EXPECT_FALSE(IsDoublingBlock(DoublingOf({{2.4, 0.5}, {2.7, 1}, {3, 2}, {3.4, 4}}), 4));
  EXPECT_FALSE(IsDoublingBlock(DoublingOf({{0.1, 4}, {0.75, 1}, {1.5, 2}, {3, 4}}), 4));
  EXPECT_FALSE(IsDoublingBlock(DoublingOf({{0.7, 1}, {1.5, 1}, {3, 1}, {3.7, 1}}), 4));
  Trend several = DoublingOf({{0.4, 0.5}, {0.75, 1}, {1.5, 2}, {3, 4}});
  several.steps[2].blocks = 3;
  EXPECT_FALSE(IsDoublingBlock(several, 4));
}

TEST(Trend, WhatHasNoCheckpointsOfItsOwnIsNotJudged) {
  Trend trend = BlockOf([](double share) { return 1e6 * (share + 0.06); });
  trend.is_measured = false;
  EXPECT_FALSE(IsGrowingBlock(trend));
}

// What is kept after each part, of blocks that come at a rate.
Trend QueueOf(const std::function<double(double)>& kept, const std::function<double(double)>& rate) {
  Trend trend = {.is_measured = true, .kept_blocks = 500, .kept_bytes = kept(1)};
  for (size_t i = 0; i < kTrendParts; ++i) {
    const double share = static_cast<double>(i) / kTrendParts;
    trend.alive.push_back({0, kept(share) + 30011});  // with some garbage
    trend.blocks[i] = rate(share);
  }
  double so_far = 0;
  for (size_t i = 0; i < kTrendParts; so_far += trend.blocks[i++]) trend.alive[i].at = so_far;
  for (Alive& moment : trend.alive) moment.at /= so_far;
  return trend;
}
double Evenly(double) { return 199; }

TEST(Trend, AQueueThatFillsFasterThanItEmptiesGrows) {
  EXPECT_TRUE(IsGrowingQueue(QueueOf([](double share) { return 1e6 * share; }, Evenly)));
  EXPECT_TRUE(IsGrowingQueue(QueueOf([](double share) { return 1e6 * (0.1 + 0.9 * share); }, Evenly)));
}

// A sawtooth, seen twice in each of its periods: the lows that the checkpoints meet rise by chance.
TEST(Trend, ASawtoothIsNoQueueWhateverTheCheckpointsMeet) {
  Trend trend = {.is_measured = true, .kept_blocks = 104, .kept_bytes = 914};
  trend.kept_bytes *= 1024;
  trend.blocks.fill(125);
  const double alive[] = {400, 167, 800, 300, 900, 200, 700, 334, 950, 334, 800, 700, 930, 910};
  for (size_t i = 0; i < std::size(alive); ++i) {
    trend.alive.push_back({static_cast<double>(i + 1) / std::size(alive), alive[i] * 1024});
  }
  EXPECT_FALSE(IsGrowingQueue(trend));
}

TEST(Trend, AProgramThatSlowsDownFillsItsQueueMoreSlowly) {
  const auto kept = [](double share) { return 1e6 * share * (1.5 - 0.5 * share); };
  EXPECT_TRUE(IsGrowingQueue(QueueOf(kept, [](double share) { return 1000 * (1.5 - share); })));
}

TEST(Trend, CachesThatFillUpAndTurnOverDoNot) {
  EXPECT_FALSE(IsGrowingQueue(QueueOf([](double share) { return 1e6 * std::min(1.0, share / 0.8); }, Evenly)));
  EXPECT_FALSE(IsGrowingQueue(QueueOf([](double share) { return 1e6 * (1 - std::exp(-2 * share)); }, Evenly)));
  EXPECT_FALSE(IsGrowingQueue(QueueOf([](double share) { return 1e6 * std::fmod(share, 0.4); }, Evenly)));
  EXPECT_FALSE(IsGrowingQueue(QueueOf([](double) { return 1e6; }, Evenly)));
}

TEST(Trend, GarbageThatWaitsIsNoQueue) {
  Trend trend = QueueOf([](double share) { return 4e6 * share; }, Evenly);
  trend.kept_bytes = 1e6;  // after the full GC
  EXPECT_FALSE(IsGrowingQueue(trend));
}

TEST(Trend, WhatLetsGoAfterATimeHoldsMoreWhenMoreComes) {
  const auto rising = [](double share) { return 1e6 * (0.05 + share); };
  EXPECT_FALSE(IsGrowingQueue(QueueOf(rising, [](double share) { return 1000 * (0.05 + share); })));
}

}  // namespace
}  // namespace nodeleak::report
