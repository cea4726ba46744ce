#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

#include "preload/recorder/block_table.h"
#include "preload/recorder/recording_file.h"

namespace nodeleak::preload {
namespace {

using recording::Block;

class BlockTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(file_.CreateInMemory(64 << 20));
    table_.Attach(&file_);
  }
  void TearDown() override { file_.Close(); }

  static Block MakeBlock(uint64_t address, uint64_t size, uint32_t stack = 7) {
    return {address, recording::PackSizeAndGc(size, 3), stack, 11};
  }

  RecordingFile file_;
  BlockTable table_;
};

TEST_F(BlockTableTest, RemembersWhatWasInserted) {
  Block old;
  EXPECT_EQ(table_.Insert(MakeBlock(0x5000, 1999), &old), BlockTable::InsertResult::kInserted);
  Block removed;
  ASSERT_TRUE(table_.Remove(0x5000, &removed));
  EXPECT_EQ(recording::BlockSize(removed), 1999u);
  EXPECT_EQ(recording::BlockBirthGc(removed), 3u);
  EXPECT_EQ(removed.stack, 7u);
  EXPECT_EQ(removed.birth_tick, 11u);
}

TEST_F(BlockTableTest, FreeOfAnUnknownAddressIsNotFound) {
  Block removed;
  EXPECT_FALSE(table_.Remove(0x6000, &removed));
}

TEST_F(BlockTableTest, HoldsWhatWasInsertedUntilItIsRemoved) {
  Block block;
  EXPECT_FALSE(table_.Holds(0x5000));
  table_.Insert(MakeBlock(0x5000, 1999), &block);
  EXPECT_TRUE(table_.Holds(0x5000));
  EXPECT_FALSE(table_.Holds(0x5010));
  table_.Remove(0x5000, &block);
  EXPECT_FALSE(table_.Holds(0x5000));
}

TEST_F(BlockTableTest, ABlockAtAKnownAddressReplacesIt) {
  Block old;
  table_.Insert(MakeBlock(0x5000, 1999, 1), &old);
  EXPECT_EQ(table_.Insert(MakeBlock(0x5000, 50021, 2), &old), BlockTable::InsertResult::kReplaced);
  EXPECT_EQ(old.stack, 1u);
  EXPECT_EQ(recording::BlockSize(old), 1999u);
  EXPECT_EQ(table_.Live().bytes, 50021u);
  EXPECT_EQ(table_.Live().blocks, 1u);
}

TEST_F(BlockTableTest, AgreesWithAModelOverAMillionRandomEvents) {
  std::mt19937_64 random(20021);
  std::unordered_map<uint64_t, uint64_t> model;
  for (int event = 0; event < 1'000'000; ++event) {
    const uint64_t address = 0x7f0000000000 + (random() % 40'000) * 16;
    Block block;
    if (random() % 2 == 0) {
      const uint64_t size = 1 + random() % 5000;
      const bool known = model.count(address) != 0;
      const auto result = table_.Insert(MakeBlock(address, size), &block);
      ASSERT_EQ(result, known ? BlockTable::InsertResult::kReplaced : BlockTable::InsertResult::kInserted);
      model[address] = size;
    } else {
      const auto found = model.find(address);
      ASSERT_EQ(table_.Remove(address, &block), found != model.end());
      if (found == model.end()) continue;
      ASSERT_EQ(recording::BlockSize(block), found->second);
      model.erase(found);
    }
  }
  uint64_t bytes = 0;
  for (const auto& [address, size] : model) bytes += size;
  EXPECT_EQ(table_.Live().blocks, model.size());
  EXPECT_EQ(table_.Live().bytes, bytes);
  std::unordered_map<uint64_t, uint64_t> seen;
  table_.ForEach([&](const Block& block) { seen[block.address] = recording::BlockSize(block); });
  EXPECT_EQ(seen, model);
}

TEST_F(BlockTableTest, FourThreadsLoseNothing) {
  constexpr uint64_t kPerThread = 50'000;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread] {
      Block block;
      for (uint64_t i = 0; i < kPerThread; ++i) table_.Insert(MakeBlock((thread << 40) + (i + 1) * 16, 17), &block);
      for (uint64_t i = 0; i < kPerThread; i += 2) table_.Remove((thread << 40) + (i + 1) * 16, &block);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table_.Live().blocks, 4 * kPerThread / 2);
  EXPECT_EQ(table_.Live().bytes, 4 * kPerThread / 2 * 17);
}

TEST(BlockTableLimit, AFullRecordingRefusesAndKeepsWhatItHas) {
  RecordingFile file;
  ASSERT_TRUE(file.CreateInMemory(1 << 20));
  BlockTable table;
  table.Attach(&file);
  uint64_t inserted = 0;
  bool refused = false;
  for (uint64_t i = 1; i < 200'000 && !refused; ++i) {
    Block old;
    const auto result = table.Insert({i * 16, recording::PackSizeAndGc(33, 0), 0, 0}, &old);
    refused = result == BlockTable::InsertResult::kFull;
    if (result == BlockTable::InsertResult::kInserted) ++inserted;
  }
  EXPECT_TRUE(refused);
  EXPECT_EQ(table.Live().blocks, inserted);
  Block removed;
  EXPECT_TRUE(table.Remove(16, &removed));  // still answers
  EXPECT_FALSE(table.Remove(16, &removed));
  file.Close();
}

}  // namespace
}  // namespace nodeleak::preload
