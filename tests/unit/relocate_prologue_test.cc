#include "tracer/relocate_prologue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

namespace nodeleak::tracer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kFrom = 0x7f0000001000, kTo = 0x7f0000100000;

std::vector<uint8_t> Bytes(std::initializer_list<uint8_t> bytes) { return bytes; }

int32_t DistanceAt(const std::vector<uint8_t>& code, size_t at) {
  int32_t distance;
  memcpy(&distance, &code[at], sizeof distance);
  return distance;
}

std::string WhyNot(const std::vector<uint8_t>& function, uint64_t to = kTo) {
  const auto moved = RelocatePrologue(function, kFrom, to);
  return moved.ok() ? "it was moved" : std::string(moved.status().message());
}

TEST(RelocatePrologue, WholeInstructionsAreTakenAndTheRestIsJumpedTo) {
  // push r12; push rbp; mov rbp, rdi; push rbx; ret
  const auto function = Bytes({0x41, 0x54, 0x55, 0x48, 0x89, 0xfd, 0x53, 0xc3});
  const auto moved = RelocatePrologue(function, kFrom, kTo);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->taken, 6u);
  EXPECT_EQ(std::vector<uint8_t>(moved->code.begin(), moved->code.begin() + 6),
            Bytes({0x41, 0x54, 0x55, 0x48, 0x89, 0xfd}));
  EXPECT_EQ(DecodeJump(absl::MakeSpan(moved->code).subspan(6), kTo + 6), kFrom + 6);
}

TEST(RelocatePrologue, WhatIsRelativeToTheInstructionIsAdjusted) {
  // mov rax, [rip + 0x100]; ret
  const auto function = Bytes({0x48, 0x8b, 0x05, 0x00, 0x01, 0x00, 0x00, 0xc3});
  const auto moved = RelocatePrologue(function, kFrom, kTo);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(kTo + 7 + DistanceAt(moved->code, 3), kFrom + 7 + 0x100);
}

TEST(RelocatePrologue, AShortBranchBecomesALongOne) {
  // test rdi, rdi; je +0x10; then room for its target
  std::vector<uint8_t> function = Bytes({0x48, 0x85, 0xff, 0x74, 0x10});
  function.resize(64, 0x90);
  const auto moved = RelocatePrologue(function, kFrom, kTo);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->code[3], 0x0f);
  EXPECT_EQ(moved->code[4], 0x84);
  EXPECT_EQ(kTo + 9 + DistanceAt(moved->code, 5), kFrom + 5 + 0x10);
  ASSERT_EQ(moved->instructions.size(), 2u);
  EXPECT_EQ(moved->instructions[1].from, 3u);
  EXPECT_EQ(moved->instructions[1].to, 3u);
}

TEST(RelocatePrologue, ATailJumpIsMoved) {
  const auto function = Bytes({0xe9, 0x00, 0x02, 0x00, 0x00});  // jmp +0x200
  const auto moved = RelocatePrologue(function, kFrom, kTo);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(DecodeJump(moved->code, kTo), kFrom + 5 + 0x200);
}

TEST(RelocatePrologue, ABranchIntoTheReplacedBytesIsRefused) {
  // dec rdi; push rbx; push rbx; jne -6 (to the second push)
  EXPECT_THAT(WhyNot(Bytes({0x48, 0xff, 0xcf, 0x53, 0x53, 0x75, 0xfc, 0xc3})), HasSubstr("jumps back into them"));
  // To the very beginning it may jump: there the hook stands, as for every caller.
  EXPECT_EQ(WhyNot(Bytes({0x48, 0xff, 0xcf, 0x53, 0x53, 0x75, 0xf9, 0xc3})), "it was moved");
}

TEST(RelocatePrologue, WhatLeavesTheFunctionIsRefused) {
  EXPECT_THAT(WhyNot(Bytes({0x31, 0xc0, 0xc3, 0x90, 0x90, 0x90})), HasSubstr("ends or leaves the function"));
  EXPECT_THAT(WhyNot(Bytes({0xe8, 0x00, 0x01, 0x00, 0x00, 0xc3})), HasSubstr("ends or leaves the function"));
  EXPECT_THAT(WhyNot(Bytes({0x90, 0x90})), HasSubstr("too short"));
}

TEST(RelocatePrologue, BytesThatAreNoCodeAreRefused) {
  // push rbx five times, then what no processor runs: behind it there might be a branch back.
  EXPECT_THAT(WhyNot(Bytes({0x53, 0x53, 0x53, 0x53, 0x53, 0x06, 0x06, 0x06})), HasSubstr("cannot be read to its end"));
}

TEST(RelocatePrologue, TooFarIsRefused) {
  const auto function = Bytes({0x48, 0x8b, 0x05, 0x00, 0x01, 0x00, 0x00, 0xc3});
  EXPECT_THAT(WhyNot(function, kFrom + (uint64_t{3} << 30)), HasSubstr("too far"));
  EXPECT_FALSE(EncodeJump(0, uint64_t{1} << 32).ok());
  EXPECT_EQ(DecodeJump(Bytes({0x90, 0, 0, 0, 0}), kFrom), 0u);
}

// The moved instructions do what the function did.
TEST(RelocatePrologue, TheCopyRuns) {
  // lea rax, [rdi + rsi]; lea rax, [rax + rax*2]; add rax, 7; ret
  const auto function = Bytes({0x48, 0x8d, 0x04, 0x37, 0x48, 0x8d, 0x04, 0x40, 0x48, 0x83, 0xc0, 0x07, 0xc3});
  auto* page = static_cast<uint8_t*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(page, MAP_FAILED);
  memcpy(page, function.data(), function.size());
  uint8_t* copy = page + 512;
  const auto moved = RelocatePrologue(function, reinterpret_cast<uint64_t>(page), reinterpret_cast<uint64_t>(copy));
  ASSERT_TRUE(moved.ok()) << moved.status();
  memcpy(copy, moved->code.data(), moved->code.size());
  memset(page, 0xcc, kJumpBytes);  // what a jump would take the place of
  EXPECT_EQ(reinterpret_cast<long (*)(long, long)>(copy)(3, 4), 28);
  munmap(page, 4096);
}

}  // namespace
}  // namespace nodeleak::tracer
