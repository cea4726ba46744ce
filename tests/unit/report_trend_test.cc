#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

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

// In MiB, as measured: what goes is freed by a scavenge now and then.
TEST(Trend, AQueueShowsItselfWhereScavengesHaveFreed) {
  Trend trend = {.is_measured = true, .kept_blocks = 1040, .kept_bytes = 4.96 * (1 << 20)};
  trend.blocks.fill(275);
  const std::pair<double, double> measured[] = {{0.49, 0.49}, {1.12, 1.12}, {1.74, 1.74}, {2.36, 2.36}, {2.99, 2.99},
                                                {1.96, 3.64}, {2.57, 4.25}, {3.19, 4.87}, {3.83, 5.51}, {4.55, 6.23},
                                                {5.21, 6.88}, {5.85, 7.53}, {4.02, 8.21}, {4.68, 8.87}, {5.36, 9.55}};
  for (const auto& [alive, allocated] : measured) trend.alive.push_back({allocated / 10.52, alive * (1 << 20)});
  EXPECT_TRUE(IsGrowingQueue(trend));
  // The same of a cache that has been full since the middle.
  for (Alive& moment : trend.alive) {
    if (moment.at > 0.5) moment.bytes = std::max(moment.bytes, trend.kept_bytes);
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
