// Reading memory that may not be there: both ways of ReadMemory, against pages of this process.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "preload/base/guard.h"
#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {
namespace {

constexpr uint64_t kPage = 4096;

class HeapReader : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { t_locals.watches_gc = GetParam(); }  // loads; otherwise through the kernel
  void TearDown() override { t_locals.watches_gc = false; }
};
INSTANTIATE_TEST_SUITE_P(BothWays, HeapReader, ::testing::Bool());

class Pages {
 public:
  explicit Pages(uint64_t count) : bytes_(count * kPage) {
    memory_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~Pages() { Unmap(); }
  void Unmap() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
    memory_ = nullptr;
  }
  char* data() { return memory_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(memory_); }

 private:
  char* memory_;
  uint64_t bytes_;
};

TEST_P(HeapReader, ReadsAcrossPages) {
  Pages pages(3);
  memcpy(pages.data() + kPage - 3, "across", 6);
  char text[6];
  ASSERT_TRUE(ReadMemory(pages.address() + kPage - 3, text, sizeof text));
  EXPECT_EQ(memcmp(text, "across", sizeof text), 0);
}

TEST_P(HeapReader, WhatIsNoAddressIsNotRead) {
  for (const uint64_t address : {uint64_t{0}, uint64_t{8}, uint64_t{0xfff8}, uint64_t{1} << 47, ~uint64_t{7}}) {
    EXPECT_EQ(ReadWord(address), 0u) << address;
  }
}

TEST_P(HeapReader, APageThatCannotBeReadEndsTheRead) {
  Pages pages(2);
  memset(pages.data(), 1, 2 * kPage);
  ASSERT_NE(ReadWord(pages.address() + kPage), 0u);
  ASSERT_EQ(mprotect(pages.data() + kPage, kPage, PROT_NONE), 0);
  ForgetReadable(pages.address() + kPage, kPage);
  char bytes[16];
  EXPECT_FALSE(ReadMemory(pages.address() + kPage - 8, bytes, sizeof bytes));
  EXPECT_NE(ReadWord(pages.address()), 0u);
}

TEST_P(HeapReader, MemoryThatWentAwayIsAskedForAgain) {
  Pages pages(1);
  const uint64_t address = pages.address();
  memset(pages.data(), 1, kPage);
  ASSERT_NE(ReadWord(address), 0u);
  ForgetReadable(address, kPage);
  pages.Unmap();
  EXPECT_EQ(ReadWord(address), 0u);
}

TEST(ForgetReadable, TellsWhetherSomethingWasKnown) {
  Pages pages(1);
  uint64_t value = 0;
  ASSERT_TRUE(LoadWord(pages.address(), &value));
  EXPECT_FALSE(ForgetReadable(pages.address() - (uint64_t{1} << 40), kPage));
  EXPECT_TRUE(ForgetReadable(pages.address(), kPage));
  EXPECT_FALSE(ForgetReadable(pages.address(), kPage));
}

// For memory that other threads may release: not even what is remembered as readable is loaded.
TEST_P(HeapReader, KernelReadsAskTheKernelEachTime) {
  Pages pages(1);
  const uint64_t address = pages.address();
  memset(pages.data(), 1, kPage);
  ASSERT_NE(ReadWord(address), 0u);
  pages.Unmap();  // unseen
  KernelReads reads;
  EXPECT_EQ(ReadWord(address), 0u);
  ForgetReadable(address, kPage);
}

}  // namespace
}  // namespace nodeleak::preload::v8
