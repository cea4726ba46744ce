#include <gtest/gtest.h>

#include <thread>

#include "preload/base/guard.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/recorder_state.h"

namespace nodeleak::preload {
namespace {

using recording::ConfirmationKind;
using recording::FreedByGc;

constexpr uint32_t kStack = 1, kOld = 0, kYoung = UINT32_MAX;

class ConfirmationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(g_recorder.file.CreateInMemory(16 << 20));
    RecordingFile* file = &g_recorder.file;
    g_recorder.start_ns = MonotonicNanoseconds();
    g_recorder.blocks.Attach(file);
    g_recorder.ranges.Attach(file, [](const recording::Range&) {});
    g_recorder.freed_by_gc.Attach(file, recording::TableId::kFreedByGc, 1024);
    ASSERT_TRUE(g_recorder.stacks.Attach(file));
    g_recorder.control = &recording_;
    t_locals.isolate_generation = 1;  // this thread has an isolate
    ASSERT_TRUE(BeginConfirmation(ConfirmationKind::kRequested));
  }
  void TearDown() override {
    SetFreePhase(FreePhase::kOrdinary);
    EndConfirmation(ConfirmationKind::kRequested, 0);
    g_recorder.control = nullptr;
    g_recorder.file.Close();
  }

  ControlPage recording_ = {1};

  static FreedByGc Freed() { return g_recorder.freed_by_gc[kStack]; }
};

TEST_F(ConfirmationTest, GarbageAndPendingGoByThePhaseOfTheThread) {
  CountIfConfirmed(kStack, kOld, 1, 1);
  SetFreePhase(FreePhase::kGarbage);
  CountIfConfirmed(kStack, kOld, 1999, 1);
  CountIfConfirmed(kStack, kOld, 1999, 1);
  SetFreePhase(FreePhase::kPending);
  CountIfConfirmed(kStack, kOld, 50021, 1);
  SetFreePhase(FreePhase::kOrdinary);
  CountIfConfirmed(kStack, kOld, 7, 1);
  EXPECT_EQ(Freed().garbage_bytes, 2 * 1999u);
  EXPECT_EQ(Freed().garbage_blocks, 2u);
  EXPECT_EQ(Freed().pending_bytes, 50021u);
  EXPECT_EQ(Freed().pending_blocks, 1u);
}

TEST_F(ConfirmationTest, ARequestDoesNotReplaceTheOneOfTheEnd) {
  EXPECT_FALSE(IsConfirmingEnd());
  ASSERT_TRUE(BeginConfirmation(ConfirmationKind::kAtEnd)) << "which replaces a requested one";
  EXPECT_TRUE(IsConfirmingEnd());
  EXPECT_FALSE(BeginConfirmation(ConfirmationKind::kRequested));
  EXPECT_TRUE(IsConfirmingEnd());
  EndConfirmation(ConfirmationKind::kAtEnd, 0);
  EXPECT_FALSE(IsConfirmingEnd());
  EXPECT_NE(g_recorder.file.header()->confirmation.ended_ns, 0u);
  EXPECT_TRUE(BeginConfirmation(ConfirmationKind::kRequested));
}

TEST_F(ConfirmationTest, ASampleCountsAsWhatItStandsFor) {
  SetFreePhase(FreePhase::kGarbage);
  CountIfConfirmed(kStack, kOld, 5 * 1999, 5);
  EXPECT_EQ(Freed().garbage_bytes, 5 * 1999u);
  EXPECT_EQ(Freed().garbage_blocks, 5u);
}

TEST_F(ConfirmationTest, YoungerBlocksDoNotCount) {
  SetFreePhase(FreePhase::kGarbage);
  CountIfConfirmed(kStack, kYoung, 1999, 1);
  EXPECT_EQ(Freed().garbage_blocks, 0u);
}

TEST_F(ConfirmationTest, ThreadsWithoutAnIsolateSweepForTheCollector) {
  const auto sweep = [] { std::thread([] { CountIfConfirmed(kStack, kOld, 1999, 1); }).join(); };
  sweep();
  EXPECT_EQ(Freed().garbage_blocks, 0u);
  SetFreePhase(FreePhase::kGarbage);
  sweep();
  EXPECT_EQ(Freed().garbage_blocks, 1u);
  SetFreePhase(FreePhase::kPending);
  sweep();
  EXPECT_EQ(Freed().garbage_blocks, 1u);
}

TEST_F(ConfirmationTest, APhaseThatWasGivenUpDoesNotLeakIntoTheNextConfirmation) {
  SetFreePhase(FreePhase::kPending);
  EndConfirmation(ConfirmationKind::kRequested, 0);
  ASSERT_TRUE(BeginConfirmation(ConfirmationKind::kRequested));
  CountIfConfirmed(kStack, kOld, 1999, 1);
  EXPECT_EQ(Freed().pending_blocks, 0u);
}

TEST_F(ConfirmationTest, TheEndTakesThePlaceOfARequest) {
  ASSERT_TRUE(BeginConfirmation(ConfirmationKind::kAtEnd));
  EndConfirmation(ConfirmationKind::kRequested, 0);  // too late: it is no longer this one
  SetFreePhase(FreePhase::kGarbage);
  CountIfConfirmed(kStack, kOld, 1999, 1);
  EXPECT_EQ(Freed().garbage_blocks, 1u);
  EndConfirmation(ConfirmationKind::kAtEnd, 2);
  EXPECT_EQ(g_recorder.file.header()->confirmation.turns, 2u);
}

// The clock of the ticks is a coarser one than that of the start.
TEST(Ticks, BeginAtNothing) {
  const uint64_t before = g_recorder.start_ns;
  g_recorder.start_ns = MonotonicNanoseconds() + 1'000'000'000;
  EXPECT_EQ(TicksSinceStart(), 0u);
  g_recorder.start_ns = MonotonicNanoseconds() - 1'000'000'000;
  EXPECT_GT(TicksSinceStart(), 0u);
  g_recorder.start_ns = before;
}

}  // namespace
}  // namespace nodeleak::preload
