#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "report/trend.h"

namespace nodeleak::report {
namespace {

Trend BlockOf(const std::function<double(double)>& bytes) {
  Trend trend = {true, {}, 1, bytes(1)};
  for (size_t i = 0; i < kTrendParts; ++i) trend.mean_bytes[i] = bytes(static_cast<double>(i) / kTrendParts);
  return trend;
}

TEST(Trend, ABlockThatIsReplacedByEverLargerOnesGrows) {
  EXPECT_TRUE(IsGrowingBlock(BlockOf([](double share) { return 1e6 * (share + 0.06); })));
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

}  // namespace
}  // namespace nodeleak::report
