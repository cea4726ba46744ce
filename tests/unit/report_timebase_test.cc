// When the program worked, and when garbage was last collected.
#include "gtest/gtest.h"
#include "report/timebase.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

constexpr uint64_t kSecond = 1'000'000'000;

// Ten seconds, 100 turns of the event loop in each of the first `busy` ones.
Recording Program(uint64_t busy) {
  Recording recording;
  recording.process.flags = recording::kIsNode;
  recording.process.duration_ns = 10 * kSecond;
  recording.stacks.resize(3);
  recording.stacks[1].thread = 0;
  recording.stacks[2].thread = 1;
  for (uint64_t i = 0; i <= 10; ++i) {
    recording.timeline.push_back({.time_ns = i * kSecond, .loop_turns = 100 * std::min(i, busy)});
  }
  return recording;
}

TEST(Timebase, AProgramWhoseLoadEndedIsIdle) {
  const Recording recording = Program(5);
  EXPECT_EQ(Timebase(recording).ActivityAfter(0, 5), Activity::kIdle);
  EXPECT_EQ(Timebase(recording).ActivityAfter(0, 2), Activity::kActive) << "three of the eight seconds were busy";
}

TEST(Timebase, AProgramThatGoesOnIsActive) { EXPECT_EQ(Timebase(Program(10)).ActivityAfter(1, 4), Activity::kActive); }

TEST(Timebase, WithoutAnEventLoopNothingIsKnown) {
  EXPECT_EQ(Timebase(Program(0)).ActivityAfter(0, 5), Activity::kUnknown);
}

TEST(Timebase, AllocationsBetweenCheckpointsAreOnStraightLines) {
  Recording recording = Program(10);
  recording.stacks[1] = {.allocated_blocks = 100, .first_tick = 0, .last_tick = 2499};
  recording.checkpoints.push_back({.time_ns = 5 * kSecond, .entry_count = 1, .first_entry = 0});
  recording.checkpoint_entries.push_back({.stack = 1, .allocated_blocks = 80});
  const Timebase timebase(recording);
  EXPECT_DOUBLE_EQ(timebase.AllocatedBy(1, 2.5), 40);
  EXPECT_DOUBLE_EQ(timebase.AllocatedBy(1, 5), 80);
  EXPECT_DOUBLE_EQ(timebase.AllocatedBy(1, 7.5), 90);
}

TEST(Timebase, AStackThatACheckpointLeavesOutHasWhatItHad) {
  Recording recording = Program(10);
  recording.stacks.resize(3);
  for (uint32_t i = 0; i < 3; ++i) {
    recording.checkpoints.push_back({.time_ns = (i + 1) * kSecond, .entry_count = 1, .first_entry = i});
  }
  recording.checkpoint_entries = {{.stack = 1, .live_bytes = 100, .allocated_bytes = 300, .allocated_blocks = 3},
                                  {.stack = 2, .live_bytes = 7, .allocated_bytes = 7, .allocated_blocks = 1},
                                  {.stack = 1, .live_bytes = 0, .allocated_bytes = 300, .allocated_blocks = 3}};
  const std::vector<Timebase::Sum> sums = Timebase(recording).SumsOf({1, 2});
  ASSERT_EQ(sums.size(), 3u);
  EXPECT_EQ(sums[0].live_bytes, 100);
  EXPECT_EQ(sums[1].live_bytes, 107);
  EXPECT_EQ(sums[1].allocated_bytes, 307);
  EXPECT_EQ(sums[2].live_bytes, 7);
}

}  // namespace
}  // namespace nodeleak::report
