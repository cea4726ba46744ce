#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "preload/recorder/checkpoints.h"
#include "preload/recorder/recording_file.h"
#include "preload/recorder/stack_table.h"
#include "preload/unwind/modules.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

using recording::Checkpoint;
using recording::CheckpointEntry;
using recording::Stack;
using recording::TableId;

class CheckpointsTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kStacks = 200;

  void SetUp() override { Open(8 << 20); }
  void TearDown() override {
    stacks_.Release();
    file_.Close();
  }

  void Open(uint64_t bytes) {
    RefreshModules();
    ASSERT_TRUE(file_.CreateInMemory(bytes));
    ASSERT_TRUE(stacks_.Attach(&file_));
    checkpoints_.Attach(&file_);
    auto walked = std::make_unique<WalkedStack>();
    auto room = std::make_unique<v8::ResolveBuffer>();
    recording::LossId lost = recording::LossId::kCount;
    while (stacks_.count() < kStacks) {  // each the caller of the one before
      WalkedFrame& frame = walked->frames[walked->depth++];
      frame.key_a = reinterpret_cast<uint64_t>(&RefreshModules) + walked->depth;
      frame.type = WalkedType::kNative;
      frame.node = recording::kNoIndex;
      walked->hash = walked->depth * 0x9e3779b97f4a7c15ull;
      stacks_.Find(walked.get(), 0, room.get(), &lost);
    }
    ASSERT_EQ(lost, recording::LossId::kCount);
  }

  void Allocate(uint32_t stack, uint64_t bytes) {
    stacks_[stack].allocated_blocks += 1;
    stacks_[stack].allocated_bytes += bytes;
  }
  void Free(uint32_t stack, uint64_t bytes) {
    stacks_[stack].freed_blocks += 1;
    stacks_[stack].freed_bytes += bytes;
  }
  bool Add(uint64_t time_ns) { return checkpoints_.Add({.time_ns = time_ns}, stacks_); }

  template <typename Entry>
  Entry& At(TableId id, uint64_t index) {
    const recording::Table& table = file_.header()->tables[static_cast<uint32_t>(id)];
    uint64_t first = table.first_entries, extent = 0;
    for (; index >= first << extent; ++extent) index -= first << extent;
    return reinterpret_cast<Entry*>(file_.At(table.extents[extent]))[index];
  }
  uint64_t CountOf(TableId id) { return file_.header()->tables[static_cast<uint32_t>(id)].count; }
  uint64_t count() { return CountOf(TableId::kCheckpoints); }
  const Checkpoint& checkpoint(uint64_t k) { return At<Checkpoint>(TableId::kCheckpoints, k); }

  // What a reader makes of the first `until` + 1 checkpoints.
  std::vector<CheckpointEntry> StateAt(uint64_t until) {
    std::vector<CheckpointEntry> state(stacks_.count());
    for (uint64_t k = 0; k <= until; ++k) {
      uint32_t before = 0;
      for (uint64_t e = 0; e < checkpoint(k).entry_count; ++e) {
        const auto& entry = At<CheckpointEntry>(TableId::kCheckpointEntries, checkpoint(k).first_entry + e);
        EXPECT_TRUE(e == 0 || entry.stack > before) << "by rising stack, each once";
        before = entry.stack;
        state[entry.stack] = entry;
      }
    }
    return state;
  }

  RecordingFile file_;
  StackTable stacks_;
  Checkpoints checkpoints_;
};

TEST_F(CheckpointsTest, OnlyWhatChangedIsWritten) {
  Allocate(17, 1999);
  Allocate(18, 31);
  Add(1000);
  EXPECT_EQ(checkpoint(0).entry_count, 2u);
  Add(2000);
  EXPECT_EQ(checkpoint(1).entry_count, 0u);
  Free(17, 1999);
  Add(3000);
  ASSERT_EQ(checkpoint(2).entry_count, 1u);
  const auto& entry = At<CheckpointEntry>(TableId::kCheckpointEntries, checkpoint(2).first_entry);
  EXPECT_EQ(entry.stack, 17u);
  EXPECT_EQ(entry.live_bytes, 0u);
  EXPECT_EQ(entry.allocated_bytes, 1999u);
}

// Each thinning merges pairs; what is kept must still add up to the state at its own time.
TEST_F(CheckpointsTest, ThinnedOnesAddUpToWhatWasThere) {
  std::minstd_rand random(7);
  std::vector<std::vector<uint64_t>> live_at;  // by time
  std::vector<uint64_t> live(stacks_.count());
  uint64_t thinned = 0;
  for (uint64_t time = 0; time < 1000; ++time) {
    for (int i = 0; i < 20; ++i) {
      const auto stack = static_cast<uint32_t>(10 + random() % (kStacks - 10));
      const uint64_t bytes = random() % 5000 + 1;
      if (live[stack] >= bytes && random() % 2 == 0) {
        Free(stack, bytes);
        live[stack] -= bytes;
      } else {
        Allocate(stack, bytes);
        live[stack] += bytes;
      }
    }
    live_at.push_back(live);
    thinned += Add(time) ? 1 : 0;
    ASSERT_LE(count(), recording::kMaxCheckpoints);
  }
  EXPECT_EQ(thinned, 30u) << "every 32 after the first 64";
  for (uint64_t k = 0; k < count(); ++k) {
    const std::vector<CheckpointEntry> state = StateAt(k);
    for (uint32_t i = 0; i < state.size(); ++i) {
      ASSERT_EQ(state[i].live_bytes, live_at[checkpoint(k).time_ns][i]) << "checkpoint " << k << ", stack " << i;
    }
  }
}

TEST_F(CheckpointsTest, WhatFoundNoRoomIsStillToCome) {
  while (file_.Allocate(4096) != 0) {
  }
  constexpr uint64_t kChanged = kStacks - 10;
  uint64_t time = 0;
  for (uint64_t whole = 0; whole == count(); ++whole) {
    for (uint32_t i = 10; i < kStacks; ++i) Allocate(i, 100 + i);
    Add(time++);
  }
  EXPECT_EQ(count(), time - 1);
  EXPECT_EQ(CountOf(TableId::kCheckpointEntries), count() * kChanged) << "nothing is left of the one that did not fit";
  for (uint32_t i = 10; i < kStacks; ++i) EXPECT_EQ(stacks_[i].at_checkpoint, 0u) << i;
}

}  // namespace
}  // namespace nodeleak::preload
