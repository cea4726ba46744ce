#include "tracer/jump_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nodeleak::tracer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kGiB = uint64_t{1} << 30, kMiB = 1 << 20, kPage = JumpPage::kBytes;
constexpr uint64_t kLibrary = 0x7f1000000000;

Mapping Taken(uint64_t start, uint64_t end, const char* path = "") {
  return {{static_cast<RemoteAddress>(start), static_cast<RemoteAddress>(end)}, "rw-p", path};
}
RemoteRange Range(uint64_t start, uint64_t end) {
  return {static_cast<RemoteAddress>(start), static_cast<RemoteAddress>(end)};
}
const RemoteRange kRange = Range(kLibrary, kLibrary + 2 * kMiB);

TEST(FindFreePages, TheNearestGapComesFirst) {
  const std::vector<Mapping> mappings = {Taken(kLibrary - kGiB, kLibrary - kMiB), Taken(kLibrary, kLibrary + 2 * kMiB),
                                         Taken(kLibrary + 8 * kMiB, kLibrary + 9 * kMiB)};
  EXPECT_THAT(FindFreePages(mappings, kRange),
              ElementsAre(kLibrary - kPage, kLibrary + 8 * kMiB - kPage, kLibrary - kGiB - kPage));
}

TEST(FindFreePages, WhatIsOutOfReachIsNone) {
  const std::vector<Mapping> mappings = {Taken(kLibrary - 8 * kGiB, kLibrary), Taken(kLibrary, kLibrary + 8 * kGiB)};
  EXPECT_THAT(FindFreePages(mappings, kRange), IsEmpty());
}

// The page has to be reached from the library's far end, too.
TEST(FindFreePages, TheWholeLibraryReachesIt) {
  const RemoteRange large = Range(kLibrary, kLibrary + kGiB);
  const auto at = [&](uint64_t below) { return FindFreePages({Taken(kLibrary - below, kLibrary + kGiB)}, large); };
  EXPECT_THAT(at(kGiB / 2), ElementsAre(kLibrary - kGiB / 2 - kPage));
  EXPECT_THAT(at(kGiB + kMiB), IsEmpty());
}

TEST(FindFreePages, TheStackAndTheHeapKeepTheirRoom) {
  const uint64_t end = kLibrary + 2 * kMiB;
  const auto pages = [&](uint64_t gap) {
    return FindFreePages({Taken(kLibrary - 4 * kGiB, end), Taken(end + gap, end + gap + kMiB, "[stack]")}, kRange);
  };
  EXPECT_THAT(pages(128 * kMiB), ElementsAre(end));
  EXPECT_THAT(pages(32 * kMiB), IsEmpty());
  const auto behind_heap = [&](uint64_t gap) {
    return FindFreePages({Taken(kLibrary - 4 * kGiB, kLibrary - gap, "[heap]"), Taken(kLibrary, end)}, kRange);
  };
  EXPECT_THAT(behind_heap(128 * kMiB), ElementsAre(kLibrary - kPage));
  EXPECT_THAT(behind_heap(32 * kMiB), IsEmpty());
}

TEST(JumpPage, RowsDoNotOverlap) {
  const JumpPage page = {static_cast<RemoteAddress>(kLibrary)};
  const size_t jump_bytes = EncodeFarJump(0).size();
  for (uint32_t row = 0; row < recording::kMaxAttachHooks; ++row) {
    EXPECT_EQ(ToNumber(page.FarJump(row)), ToNumber(page.Trampoline(row)) + recording::kTrampolineBytes);
    EXPECT_LE(ToNumber(page.FarJump(row)) + jump_bytes, ToNumber(page.Trampoline(row + 1)));
  }
}

TEST(JumpPage, AFarJumpHoldsTheWholeAddress) {
  EXPECT_EQ(EncodeFarJump(0x1122334455667788),
            (std::vector<uint8_t>{0xff, 0x25, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}));
}

}  // namespace
}  // namespace nodeleak::tracer
