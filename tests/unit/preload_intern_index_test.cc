#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "preload/recorder/growing_array.h"
#include "preload/recorder/intern_index.h"

namespace nodeleak::preload {
namespace {

uint64_t HashOf(uint64_t value) { return HashBytes(&value, sizeof value); }

class InternIndexTest : public ::testing::Test {
 protected:
  void TearDown() override { index_->Free(); }
  uint32_t Find(uint32_t value) const {
    return index_->Find(HashOf(value), [value](uint32_t found) { return found == value; });
  }
  std::unique_ptr<InternIndex> index_ = std::make_unique<InternIndex>();
};

TEST_F(InternIndexTest, FindsAllAndNothingElseWhileItGrows) {
  constexpr uint32_t kCount = 200'003;
  EXPECT_EQ(Find(0), InternIndex::kNone);
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_TRUE(index_->Insert(HashOf(i), i));
    ASSERT_EQ(Find(i), i);
    ASSERT_EQ(Find(i + 1), InternIndex::kNone);
    ASSERT_EQ(Find(i / 2), i / 2);
  }
  for (uint32_t i = 0; i < kCount; ++i) ASSERT_EQ(Find(i), i);
}

// They cannot be told apart by splitting.
TEST_F(InternIndexTest, TakesAsManyOfOneHashAsABucketHolds) {
  uint32_t taken = 0;
  while (taken < 1000 && index_->Insert(HashOf(7), taken)) ++taken;
  EXPECT_GT(taken, 300u);
  EXPECT_LT(taken, 1000u);
  for (uint32_t i = 0; i < taken; ++i)
    ASSERT_EQ(index_->Find(HashOf(7), [i](uint32_t found) { return found == i; }), i);
}

TEST_F(InternIndexTest, WhatIsFoundBesideAnInsertIsRight) {
  constexpr uint32_t kCount = 60'013;
  std::atomic<uint32_t> inserted{0};
  std::thread reader([&] {
    for (uint32_t i = 0; inserted.load() < kCount; i = (i + 7919) % kCount) {
      const uint32_t found = Find(i);
      if (found != InternIndex::kNone && found != i) ADD_FAILURE() << found << " for " << i;
    }
  });
  for (uint32_t i = 0; i < kCount; ++i) {
    index_->Insert(HashOf(i), i);
    inserted.store(i + 1);
  }
  reader.join();
  for (uint32_t i = 0; i < kCount; ++i) ASSERT_EQ(Find(i), i);
}

TEST(GrowingArray, KeepsWhereItsEntriesAre) {
  auto array = std::make_unique<GrowingArray<uint32_t>>();
  ASSERT_TRUE(array->Grow(1));
  uint32_t* const first = &(*array)[0];
  for (uint32_t i = 0; i < 100'003; ++i) {
    ASSERT_TRUE(array->Grow(i + 1));
    ASSERT_EQ((*array)[i], 0u);
    (*array)[i] = i + 1;
  }
  EXPECT_EQ(&(*array)[0], first);
  for (uint32_t i = 0; i < 100'003; ++i) ASSERT_EQ((*array)[i], i + 1);
  array->Free();
}

}  // namespace
}  // namespace nodeleak::preload
