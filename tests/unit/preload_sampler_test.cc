#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "preload/recorder/sampler.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

using recording::Block;

class SamplerTest : public ::testing::Test {
 protected:
  void TearDown() override { g_sample_rate = 0; }

  struct Estimate {
    double blocks = 0, bytes = 0, deviation = 0;
  };
  // Allocates `count` blocks of `size` and adds up what the recorded ones stand for.
  Estimate AllocateMany(uint64_t size, uint64_t count) {
    Estimate estimate;
    for (uint64_t i = 0; i < count; ++i) {
      const Sampled sampled = Sample(size);
      if (!sampled.taken) continue;
      const Block block = {(i + 1) * 16, recording::PackSizeAndGc(size, 7, sampled.rate), 0, 0};
      EXPECT_EQ(recording::BlockBirthGc(block), 7u);
      EXPECT_EQ(recording::BlockSize(block), size);
      const double stood_for = static_cast<double>(recording::BlocksStoodFor(block));
      estimate.blocks += stood_for;
      estimate.bytes += stood_for * static_cast<double>(size);
    }
    const double weight = recording::SampleWeight(size, SampleRate());
    estimate.deviation = std::sqrt(static_cast<double>(count) * weight);
    return estimate;
  }
};

TEST_F(SamplerTest, OffRecordsEverything) {
  for (uint64_t size : {0u, 1u, 1999u}) EXPECT_TRUE(Sample(size).taken);
  EXPECT_EQ(Sample(50021).rate, 0u);
}

TEST_F(SamplerTest, LargeBlocksAreAlwaysRecordedAndStandForThemselves) {
  StartSampling(1000);  // 512: rounded down to a power of two
  EXPECT_EQ(SampleRate(), 9u);
  for (int i = 0; i < 1000; ++i) {
    const Sampled sampled = Sample(512);
    EXPECT_TRUE(sampled.taken);
    EXPECT_EQ(sampled.rate, 0u);
  }
  EXPECT_EQ(recording::BlocksStoodFor({16, recording::PackSizeAndGc(512, 0, 0), 0, 0}), 1u);
}

TEST_F(SamplerTest, EstimatesAreRightOnAverageWhateverTheSize) {
  StartSampling(1 << 14);
  constexpr uint64_t kCount = 400'000;
  for (uint64_t size : {17u, 480u, 1999u, 9001u, 16001u}) {
    const Estimate estimate = AllocateMany(size, kCount);
    EXPECT_NEAR(estimate.blocks, kCount, 6 * estimate.deviation) << size;
    EXPECT_NEAR(estimate.bytes, static_cast<double>(kCount * size), 6 * estimate.deviation * static_cast<double>(size));
  }
}

TEST_F(SamplerTest, WeightIsOneOverTheChance) {
  for (double x : {1e-3, 0.01, 0.3, 0.7, 0.999}) {
    const uint64_t size = static_cast<uint64_t>(x * (1ull << 30));
    const double chance = 1 - std::exp(-static_cast<double>(size) / (1ull << 30));
    EXPECT_NEAR(recording::SampleWeight(size, 30) * chance, 1, 1e-4) << x;
  }
}

TEST_F(SamplerTest, ANewRateIsUsedFromTheNextAllocationOn) {
  StartSampling(1 << 30);
  while (Sample(1000).taken) continue;
  g_sample_rate = 5;
  EXPECT_TRUE(Sample(32).taken);  // as large as the rate
  const Estimate estimate = AllocateMany(16, 100'000);
  EXPECT_NEAR(estimate.blocks, 100'000, 6 * estimate.deviation);
}

}  // namespace
}  // namespace nodeleak::preload
