// Whose garbage memory may be, and whether that collector has looked.
#include "gtest/gtest.h"
#include "report/collectors.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint32_t kSecondTicks = 250;

// Stack 1 is of the main thread, stack 2 of a worker, stack 3 of messages between them.
struct Program {
  recording::Recording recording;
  std::vector<Use> uses = std::vector<Use>(3);

  Program() {
    recording.process.flags = recording::kIsNode;
    recording.process.duration_ns = recording.process.frozen_ns = 10 * kSecond;
    recording.stacks.resize(4);
    recording.stacks[2].thread = 1;
    recording.isolates.push_back({.thread = 0, .mark_compacts = 7, .previous_mark_compact_ns = 9 * kSecond});
    recording.isolates.push_back({.thread = 1, .mark_compacts = 2, .previous_mark_compact_ns = 4 * kSecond});
    for (uint32_t i = 0; i < 3; ++i) {
      uses[i].stack = i + 1;
      uses[i].live_blocks = 100;
    }
  }
  // A full GC at the end, the fifth to the seventh of the main isolate.
  void CollectAtTheEnd() {
    recording.process.gc_at_end = recording::GcAtEnd::kDone;
    recording.totals.live_bytes_before_gc = 1999;
    recording.stacks[1].allocated_blocks = 1;
    recording.checkpoint_entries.push_back({.stack = 1, .live_bytes = 1999});
    for (uint32_t i = 0; i < 3; ++i) {
      recording.checkpoints.push_back(
          {.time_ns = (i + 7) * kSecond, .mark_compacts = i == 0 ? 3u : 4u, .entry_count = i == 2 ? 1u : 0u});
    }
    recording.checkpoint_entries.push_back({.stack = 1, .live_bytes = 0});  // what that collection frees
    recording.checkpoints.push_back({.time_ns = 10 * kSecond, .mark_compacts = 7, .entry_count = 1, .first_entry = 1});
  }
  ClassifiedUse Classified(size_t use) { return {.use = &uses[use], .kind = Kind::kArrayBuffer}; }
  // What node allocates for finalizers that wait since the GC at the end.
  ClassifiedUse Waiting(size_t finalizers) {
    recording.confirmation.begun_ns = 9 * kSecond;
    uses[2].births.assign(finalizers, {.tick = 9 * kSecondTicks + 1, .gc = 4});
    return {.use = &uses[2], .kind = Kind::kNode};
  }
};

TEST(Collectors, AWorkerHasItsOwn) {
  Program program;
  const Collectors collectors(program.recording, {});
  EXPECT_EQ(collectors.Of(program.Classified(0))->full_gcs, 7u);
  EXPECT_EQ(collectors.Of(program.Classified(1))->full_gcs, 2u);
  EXPECT_EQ(collectors.Of(program.Classified(1))->looked_until_seconds, 4);
}

TEST(Collectors, AThreadOfJavaScriptThatWasNotMetHasNoneThatIsKnown) {
  Program program;
  program.recording.stacks[2].thread = 5;
  ClassifiedUse use = program.Classified(1);
  const Collectors collectors(program.recording, {});
  EXPECT_EQ(collectors.Of(use)->full_gcs, 7u);  // native code alone: for the main isolate, most likely
  use.site = Site{.function = "work"};
  EXPECT_EQ(collectors.Of(use)->full_gcs, 0u);
  EXPECT_STRNE(collectors.Of(use)->doubt, "");
}

TEST(Collectors, AnIsolateThatEndsAfterThePictureIsNotGone) {
  Program program;
  program.recording.isolates[0].disposed_ns = 10 * kSecond + 1;
  program.recording.isolates[1].disposed_ns = 3 * kSecond;
  const Collectors collectors(program.recording, {});
  EXPECT_FALSE(collectors.Of(program.Classified(0))->gone);
  EXPECT_TRUE(collectors.Of(program.Classified(1))->gone);
}

TEST(Collectors, AnIsolateHasNotLetGoBeforeItsThreadEnds) {
  Program program;
  program.recording.isolates[1].disposed_ns = 10 * kSecond - 1;
  program.recording.threads.resize(2);
  recording::ThreadInfo& thread = program.recording.threads[1];
  const auto is_gone = [&program] { return Collectors(program.recording, {}).Of(program.Classified(1))->gone; };
  EXPECT_TRUE(is_gone()) << "nobody saw it start";
  thread.creation_stack = 1;
  EXPECT_FALSE(is_gone());
  thread.end_ns = 10 * kSecond + 1;
  EXPECT_FALSE(is_gone()) << "after the picture";
  thread.end_ns = 10 * kSecond - 1;
  EXPECT_TRUE(is_gone());
}

TEST(Collectors, InAWorkerThatIsCollectedAtTheEndFinalizersWait) {
  Program program;
  program.CollectAtTheEnd();
  program.recording.confirmation = {.kind = static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd),
                                    .begun_ns = 9 * kSecond,
                                    .ended_ns = 9 * kSecond + 2};
  ClassifiedUse owned = program.Classified(1), reference = program.Classified(0);
  owned.addon_role = AddonRole::kOwner;
  reference.addon_role = AddonRole::kNodeApi;
  EXPECT_EQ(Collectors(program.recording, {owned, reference}).Of(owned)->full_gcs, 2u) << "its own, earlier";
  program.recording.isolates[1].last_mark_compact_ns = 9 * kSecond + 1;
  EXPECT_EQ(Collectors(program.recording, {owned, reference, program.Waiting(50)}).Of(owned)->full_gcs, 0u);
  EXPECT_EQ(Collectors(program.recording, {owned}).Of(owned)->full_gcs, 2u) << "no finalizer of it anywhere";
}

TEST(Collectors, AForcedGcThatWasCutInItsMidstDoesNotCount) {
  Program program;
  program.recording.isolates[0].last_mark_compact_ns = 9 * kSecond + 2;
  program.recording.isolates[1].last_mark_compact_ns = 9 * kSecond - 2;
  program.recording.confirmation.begun_ns = 9 * kSecond;
  EXPECT_EQ(Collectors(program.recording, {}).Of(program.Classified(0))->full_gcs, 0u);
  EXPECT_EQ(Collectors(program.recording, {}).Of(program.Classified(1))->full_gcs, 2u) << "not begun there";
  program.recording.confirmation.ended_ns = 9 * kSecond + 3;
  EXPECT_EQ(Collectors(program.recording, {}).Of(program.Classified(0))->full_gcs, 7u);
}

TEST(Collectors, OutsideNodeThereIsNone) {
  Program program;
  program.recording.process.flags = 0;
  EXPECT_FALSE(Collectors(program.recording, {}).Of(program.Classified(0)).has_value());
}

TEST(Collectors, WhatAnAddonMayFinalizeIsJudgedByTheGcBeforeTheEnd) {
  Program program;
  program.CollectAtTheEnd();
  ClassifiedUse owned = program.Classified(0), reference = program.Classified(1);
  owned.addon_role = AddonRole::kOwner;
  reference.addon_role = AddonRole::kNodeApi;
  const std::vector<ClassifiedUse> uses = {owned, reference, program.Waiting(50)};
  const std::optional<Collector> waiting = Collectors(program.recording, uses).Of(owned);
  EXPECT_EQ(waiting->full_gcs, 4u);
  EXPECT_EQ(waiting->looked_until_seconds, 7) << "when it had done three";
  EXPECT_FALSE(waiting->HasSeen({.tick = 7 * kSecondTicks, .gc = 3})) << "it has met one, while that was marking";
  EXPECT_TRUE(waiting->HasSeen({.tick = 6 * kSecondTicks, .gc = 2}));
  EXPECT_EQ(Collectors(program.recording, {owned, program.Waiting(50)}).Of(owned)->full_gcs, 7u)
      << "no finalizer of it anywhere";
  EXPECT_EQ(Collectors(program.recording, {owned, reference, program.Waiting(3)}).Of(owned)->full_gcs, 7u)
      << "next to no finalizer waits";
}

TEST(Collectors, OnABusyMachineManyCheckpointsComeAfterTheGcHasBegun) {
  Program program;
  program.CollectAtTheEnd();
  ClassifiedUse owned = program.Classified(0), reference = program.Classified(1);
  owned.addon_role = AddonRole::kOwner;
  reference.addon_role = AddonRole::kNodeApi;
  const std::vector<ClassifiedUse> uses = {owned, reference, program.Waiting(50)};
  program.recording.confirmation.kind = static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd);
  for (uint32_t i = 1; i < 5; ++i) {
    program.recording.checkpoints.push_back({.time_ns = 10 * kSecond + i, .mark_compacts = 7, .entry_count = 0});
  }
  EXPECT_EQ(Collectors(program.recording, uses).Of(owned)->full_gcs, 4u);
}

TEST(Collectors, PostedArrayBuffersNeedAGcOfEachIsolate) {
  Program program;
  ClassifiedUse message = program.Classified(2);
  message.is_message = message.use->owns_counters = true;
  recording::Stack& stack = program.recording.stacks[3];
  stack = {.allocated_blocks = 90, .first_tick = 0, .last_tick = 9 * kSecondTicks};
  EXPECT_EQ(Collectors(program.recording, {message}).Of(program.Classified(0))->looked_until_seconds, 4);
  stack.last_tick = 10;  // only while the worker started
  EXPECT_EQ(Collectors(program.recording, {message}).Of(program.Classified(0))->looked_until_seconds, 9);
}

}  // namespace
}  // namespace nodeleak::report
