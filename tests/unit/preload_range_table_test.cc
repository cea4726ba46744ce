#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

#include "preload/recorder/range_table.h"
#include "preload/recorder/recording_file.h"

namespace nodeleak::preload {
namespace {

using recording::Range;

constexpr uint64_t kPage = 4096;
uint64_t g_freed_bytes;

class RangeTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_freed_bytes = 0;
    ASSERT_TRUE(file_.CreateInMemory(16 << 20));
    table_.Attach(&file_, [](const Range& part) { g_freed_bytes += part.end - part.start; });
  }
  void TearDown() override { file_.Close(); }

  static Range MakeRange(uint64_t first_page, uint64_t pages, uint32_t stack,
                         uint32_t protection = PROT_READ | PROT_WRITE) {
    Range range = {};
    range.start = first_page * kPage;
    range.end = (first_page + pages) * kPage;
    range.stack = stack;
    range.protection = protection;
    return range;
  }

  void Unmap(uint64_t first_page, uint64_t end_page) {
    TakenRanges taken;
    ASSERT_TRUE(table_.Take(first_page * kPage, end_page * kPage, &taken));
    table_.Forget(taken);
  }

  // The pages that were added.
  uint64_t Remap(uint64_t first_page, uint64_t end_page, uint64_t new_page, uint64_t new_pages) {
    TakenRanges taken;
    Range added;
    EXPECT_TRUE(table_.Take(first_page * kPage, end_page * kPage, &taken));
    EXPECT_TRUE(table_.PutAt(taken, new_page * kPage, new_pages * kPage, &added));
    return (added.end - added.start) / kPage;
  }

  // {first page, pages, stack, protection} of each.
  std::vector<std::vector<uint64_t>> Contents() {
    AppendTable<Range> ranges;
    const recording::Table& table = file_.header()->tables[static_cast<uint32_t>(recording::TableId::kRanges)];
    std::vector<std::vector<uint64_t>> contents;
    for (uint64_t i = 0; i < table.count; ++i) {
      const Range& range = reinterpret_cast<const Range*>(file_.At(table.extents[0]))[i];
      contents.push_back({range.start / kPage, (range.end - range.start) / kPage, range.stack, range.protection});
    }
    return contents;
  }

  // The birth ticks in the same order.
  std::vector<uint32_t> Births() {
    const recording::Table& table = file_.header()->tables[static_cast<uint32_t>(recording::TableId::kRanges)];
    std::vector<uint32_t> births;
    for (uint64_t i = 0; i < table.count; ++i) {
      births.push_back(reinterpret_cast<const Range*>(file_.At(table.extents[0]))[i].birth_tick);
    }
    return births;
  }

  static constexpr uint64_t kRw = PROT_READ | PROT_WRITE;
  static constexpr uint32_t kLater = 501;  // ticks
  RecordingFile file_;
  RangeTable table_;
};

using Expected = std::vector<std::vector<uint64_t>>;

TEST_F(RangeTableTest, PartialUnmapSplits) {
  table_.Insert(MakeRange(100, 10, 1));
  Unmap(103, 105);
  EXPECT_EQ(Contents(), (Expected{{100, 3, 1, kRw}, {105, 5, 1, kRw}}));
  EXPECT_EQ(g_freed_bytes, 2 * kPage);
}

TEST_F(RangeTableTest, CoversWhatIsInside) {
  table_.Insert(MakeRange(100, 10, 1));
  EXPECT_FALSE(table_.Covers(100 * kPage - 1));
  EXPECT_TRUE(table_.Covers(100 * kPage));
  EXPECT_TRUE(table_.Covers(110 * kPage - 1));
  EXPECT_FALSE(table_.Covers(110 * kPage));
}

TEST_F(RangeTableTest, UnmapAcrossSeveralTakesTheirParts) {
  table_.Insert(MakeRange(100, 4, 1));
  table_.Insert(MakeRange(104, 4, 2));
  table_.Insert(MakeRange(110, 4, 3));
  Unmap(102, 112);
  EXPECT_EQ(Contents(), (Expected{{100, 2, 1, kRw}, {112, 2, 3, kRw}}));
  EXPECT_EQ(g_freed_bytes, 8 * kPage);
}

TEST_F(RangeTableTest, MapFixedOverAnOldOneReplacesThatPart) {
  table_.Insert(MakeRange(100, 10, 1));
  table_.Insert(MakeRange(104, 2, 2));
  EXPECT_EQ(Contents(), (Expected{{100, 4, 1, kRw}, {104, 2, 2, kRw}, {106, 4, 1, kRw}}));
}

TEST_F(RangeTableTest, ProtectionTellsReservedFromCommittedAndMergesBack) {
  table_.Insert(MakeRange(100, 10, 1, PROT_NONE));
  EXPECT_EQ(table_.CommittedBytes(), 0u);
  table_.Protect(102 * kPage, 104 * kPage, PROT_READ | PROT_WRITE, kLater, 3);
  EXPECT_EQ(Contents(), (Expected{{100, 2, 1, PROT_NONE}, {102, 2, 1, kRw}, {104, 6, 1, PROT_NONE}}));
  EXPECT_EQ(table_.CommittedBytes(), 2 * kPage);
  table_.Protect(102 * kPage, 104 * kPage, PROT_NONE, kLater + 1, 4);
  EXPECT_EQ(Contents(), (Expected{{100, 10, 1, PROT_NONE}}));
}

TEST_F(RangeTableTest, WhatIsCommittedLaterIsBornThen) {
  table_.Insert(MakeRange(100, 10, 1, PROT_NONE));
  table_.Protect(100 * kPage, 102 * kPage, kRw, 10, 0);
  table_.Protect(102 * kPage, 104 * kPage, kRw, kLater, 3);
  EXPECT_EQ(Contents(), (Expected{{100, 2, 1, kRw}, {102, 2, 1, kRw}, {104, 6, 1, PROT_NONE}}));
  EXPECT_EQ(Births(), (std::vector<uint32_t>{10, kLater, 0}));
  table_.Protect(100 * kPage, 104 * kPage, PROT_READ, kLater + 9, 3);
  table_.Protect(100 * kPage, 104 * kPage, kRw, kLater + 9, 3);
  EXPECT_EQ(Births(), (std::vector<uint32_t>{10, kLater, 0}));
}

TEST_F(RangeTableTest, PiecesOfAReservationDoNotPileUp) {
  table_.Insert(MakeRange(0, 100'000, 1, PROT_NONE));
  for (uint32_t i = 0; i < 100'000; ++i) table_.Protect(i * kPage, (i + 1) * kPage, kRw, i, 0);
  EXPECT_LT(Births().size(), 1000u);
  EXPECT_GT(Births().size(), 100u);
  EXPECT_EQ(table_.CommittedBytes(), 100'000 * kPage);
}

TEST_F(RangeTableTest, RemapMovesAndStretchesUnderTheOldStack) {
  table_.Insert(MakeRange(100, 4, 9));
  table_.Insert(MakeRange(203, 4, 2));
  EXPECT_EQ(Remap(100, 104, 200, 5), 1u);
  EXPECT_EQ(Contents(), (Expected{{200, 5, 9, kRw}, {205, 2, 2, kRw}}));
  EXPECT_EQ(g_freed_bytes, 2 * kPage);
}

TEST_F(RangeTableTest, RemapCutsOffWhatIsTooMuch) {
  table_.Insert(MakeRange(100, 10, 9));
  EXPECT_EQ(Remap(102, 108, 102, 2), 0u);
  EXPECT_EQ(Contents(), (Expected{{100, 2, 9, kRw}, {102, 2, 9, kRw}, {108, 2, 9, kRw}}));
  EXPECT_EQ(g_freed_bytes, 4 * kPage);
}

// What the kernel has merged, or moves in one call (Linux 6.17), may be several of ours, with gaps.
TEST_F(RangeTableTest, RemapKeepsSeveralApart) {
  table_.Insert(MakeRange(100, 2, 1));
  table_.Insert(MakeRange(102, 3, 2, PROT_READ));
  table_.Insert(MakeRange(107, 1, 3));
  EXPECT_EQ(Remap(101, 108, 301, 7), 0u);
  EXPECT_EQ(Contents(), (Expected{{100, 1, 1, kRw}, {301, 1, 1, kRw}, {302, 3, 2, PROT_READ}, {307, 1, 3, kRw}}));
  EXPECT_EQ(g_freed_bytes, 0u);
  EXPECT_EQ(Remap(301, 308, 401, 3), 0u);
  EXPECT_EQ(Contents(), (Expected{{100, 1, 1, kRw}, {401, 1, 1, kRw}, {402, 2, 2, PROT_READ}}));
  EXPECT_EQ(g_freed_bytes, 2 * kPage);
}

TEST_F(RangeTableTest, WhereAGapComesToLieNothingChanges) {
  table_.Insert(MakeRange(100, 1, 1));
  table_.Insert(MakeRange(103, 1, 2));
  table_.Insert(MakeRange(200, 4, 3));
  Remap(100, 104, 200, 4);
  EXPECT_EQ(Contents(), (Expected{{200, 1, 1, kRw}, {201, 2, 3, kRw}, {203, 1, 2, kRw}}));
}

TEST_F(RangeTableTest, RemapOfAnUnknownMappingOnlyReplacesWhatItMeets) {
  table_.Insert(MakeRange(100, 4, 9));
  EXPECT_EQ(Remap(300, 304, 400, 4), 0u);
  EXPECT_EQ(Contents(), (Expected{{100, 4, 9, kRw}}));
  Remap(300, 304, 102, 4);
  EXPECT_EQ(Contents(), (Expected{{100, 2, 9, kRw}}));
}

TEST_F(RangeTableTest, WhatIsMappedWhileItIsTakenStays) {
  table_.Insert(MakeRange(100, 4, 1));
  TakenRanges taken;
  ASSERT_TRUE(table_.Take(100 * kPage, 104 * kPage, &taken));
  table_.Insert(MakeRange(101, 2, 2));  // by another thread, before the call of the first has come back
  Range added;
  ASSERT_TRUE(table_.PutAt(taken, 200 * kPage, 4 * kPage, &added));
  EXPECT_EQ(Contents(), (Expected{{101, 2, 2, kRw}, {200, 4, 1, kRw}}));
  EXPECT_EQ(g_freed_bytes, 0u);
}

TEST_F(RangeTableTest, AFailedCallPutsAllBack) {
  table_.Insert(MakeRange(100, 4, 1));
  table_.Insert(MakeRange(106, 4, 2));
  TakenRanges taken;
  ASSERT_TRUE(table_.Take(102 * kPage, 107 * kPage, &taken));
  ASSERT_TRUE(table_.PutBack(taken));
  EXPECT_EQ(Contents(), (Expected{{100, 2, 1, kRw}, {102, 2, 1, kRw}, {106, 1, 2, kRw}, {107, 3, 2, kRw}}));
  EXPECT_EQ(g_freed_bytes, 0u);
}

TEST_F(RangeTableTest, MoreThanCanBeTakenIsFreed) {
  constexpr uint64_t kMany = TakenRanges::kMost + 9;
  for (uint64_t i = 0; i < kMany; ++i) table_.Insert(MakeRange(100 + 2 * i, 1, 1));
  Unmap(100, 100 + 2 * kMany);
  EXPECT_EQ(Contents(), Expected{});
  EXPECT_EQ(g_freed_bytes, kMany * kPage);
}

}  // namespace
}  // namespace nodeleak::preload
