#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "preload/recorder/recording_file.h"
#include "preload/recorder/stack_table.h"
#include "preload/unwind/modules.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

using recording::kNoIndex;
using recording::LossId;

class StackTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    RefreshModules();
    ASSERT_TRUE(file_.CreateInMemory(8 << 20));
    ASSERT_TRUE(table_.Attach(&file_));
  }
  void TearDown() override {
    table_.Release();
    file_.Close();
  }

  // Outermost first, as a walk leaves it; no node is known yet.
  void Push(WalkedType type, uint64_t key) {
    WalkedFrame& frame = walked_->frames[walked_->depth++];
    frame.key_a = key;
    frame.type = type;
    frame.node = kNoIndex;
    walked_->hash = (walked_->hash ^ key) * 0x9e3779b97f4a7c15ull;
  }
  void PushNative(uint64_t offset) { Push(WalkedType::kNative, reinterpret_cast<uint64_t>(&RefreshModules) + offset); }

  uint32_t Find() {
    LossId lost = LossId::kCount;
    const uint32_t stack = table_.Find(walked_.get(), 0, room_.get(), &lost);
    EXPECT_EQ(lost, LossId::kCount);
    return stack;
  }

  RecordingFile file_;
  StackTable table_;
  std::unique_ptr<v8::ResolveBuffer> room_ = std::make_unique<v8::ResolveBuffer>();
  std::unique_ptr<WalkedStack> walked_ = std::make_unique<WalkedStack>();
};

TEST_F(StackTableTest, TheSameFramesAreTheSameStack) {
  PushNative(1);
  PushNative(2);
  const uint32_t first = Find();
  const uint64_t count = table_.count();
  EXPECT_EQ(Find(), first);
  PushNative(3);
  EXPECT_NE(Find(), first);
  EXPECT_EQ(table_.count(), count + 1);
}

// The next stack of the thread begins at the innermost frame with a node: one without stands in the way of all inside
// of it.
TEST_F(StackTableTest, FramesWithNothingToShowAreRememberedLikeAllOthers) {
  PushNative(1);
  Push(WalkedType::kSkipped, 0);
  PushNative(2);
  const uint32_t stack = Find();
  EXPECT_EQ(table_[stack].depth, 2u);
  for (uint32_t i = 0; i < walked_->depth; ++i) EXPECT_NE(walked_->frames[i].node, kNoIndex) << "frame " << i;
  EXPECT_EQ(walked_->frames[1].node, walked_->frames[0].node);
}

TEST_F(StackTableTest, MarkersAreNotRememberedNorIsAnythingInsideOfThem) {
  PushNative(1);
  Push(WalkedType::kMarker, static_cast<uint64_t>(recording::MarkerId::kUnknownCode));
  PushNative(2);
  Find();
  EXPECT_NE(walked_->frames[0].node, kNoIndex);
  EXPECT_EQ(walked_->frames[1].node, kNoIndex);
  EXPECT_EQ(walked_->frames[2].node, kNoIndex);
}

// Threads that start run the same code at once: each stack, node and frame is there once.
TEST_F(StackTableTest, ThreadsThatMeetTheSameStacksAtOnceGetTheSameOnes) {
  constexpr uint32_t kThreads = 8, kStacks = 3001;
  const uint64_t before = table_.count();
  std::vector<std::vector<uint32_t>> found(kThreads);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto walked = std::make_unique<WalkedStack>();
      auto room = std::make_unique<v8::ResolveBuffer>();
      for (uint32_t i = 0; i < kStacks; ++i) {
        walked->depth = 3;
        walked->hash = (i + 1) * 0x9e3779b97f4a7c15ull;
        const uint64_t keys[] = {1, 2 + i / 100, 100 + i};
        for (uint32_t frame = 0; frame < walked->depth; ++frame) {
          walked->frames[frame].key_a = reinterpret_cast<uint64_t>(&RefreshModules) + keys[frame];
          walked->frames[frame].type = WalkedType::kNative;
          walked->frames[frame].node = kNoIndex;
        }
        LossId lost = LossId::kCount;
        found[t].push_back(table_.Find(walked.get(), 0, room.get(), &lost));
        if (lost != LossId::kCount) ADD_FAILURE() << "lost";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table_.count(), before + kStacks);
  for (uint32_t t = 1; t < kThreads; ++t) EXPECT_EQ(found[t], found[0]) << "thread " << t;
}

}  // namespace
}  // namespace nodeleak::preload
