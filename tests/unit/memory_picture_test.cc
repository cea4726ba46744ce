// Memory pictures over a /proc that the test writes, and over this very process.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "memory/limits.h"
#include "memory/picture.h"

namespace nodeleak::memory {
namespace {

using recording::MemoryAmount;
using recording::MemoryPart;
using recording::MemoryPicture;

long Call(long number, long a, long b, long c, long d, long e, long f) {
  const long result = syscall(number, a, b, c, d, e, f);
  return result < 0 ? -errno : result;
}
void* Map(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}
void Unmap(void* address, size_t bytes) { munmap(address, bytes); }

constexpr System kOwnProcess = {Call, Map, Unmap, "/proc/self", 0};

uint64_t Resident(const MemoryPicture& picture, MemoryPart part) {
  return picture.parts[static_cast<uint32_t>(part)].resident;
}
uint64_t SumOfParts(const MemoryPicture& picture) {
  uint64_t sum = 0;
  for (const MemoryAmount& part : picture.parts) sum += part.resident;
  return sum;
}

// A folder that stands for /proc/PID.
class FakeProc : public ::testing::Test {
 protected:
  FakeProc() {
    std::string pattern = (std::filesystem::temp_directory_path() / "nodeleak-proc-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~FakeProc() override { std::filesystem::remove_all(folder_); }

  void ExpectPagesOfZerosToBeNoMemory(uint64_t zeros);

  System system() const { return {Call, Map, Unmap, folder_.c_str(), 0}; }
  void Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder_ + "/" + name).parent_path());
    std::ofstream(folder_ + "/" + name) << text;
  }
  static std::string Area(const std::string& range, const std::string& rights, int kilobytes, const std::string& name) {
    char text[256];
    snprintf(text, sizeof text, "%s %s 00000000 00:00 0     %s\nSize:  99 kB\nRss:  %d kB\nSwap:  0 kB\nVmFlags: rd\n",
             range.c_str(), rights.c_str(), name.c_str(), kilobytes);
    return text;
  }
  // Entries of the pages from `first_page` on; a hole before.
  void WritePagemap(uint64_t first_page, const std::vector<uint64_t>& entries) const {
    const int fd = open((folder_ + "/pagemap").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    EXPECT_EQ(pwrite(fd, entries.data(), entries.size() * 8, static_cast<off_t>(first_page * 8)),
              static_cast<ssize_t>(entries.size() * 8));
    close(fd);
  }

  std::string folder_;
};

constexpr uint64_t kPresent = 1ull << 63, kExclusive = 1ull << 56;

TEST_F(FakeProc, EveryAreaIsOneOfTheParts) {
  Write("smaps", Area("400000-500000", "r-xp", 1024, "/usr/bin/node") + Area("500000-504000", "rw-p", 16, "") +
                     Area("7f0000000000-7f0000010000", "rw-p", 64, "") +
                     Area("7f0000020000-7f0000024000", "rw-s", 16, "/memfd:x (deleted)") +
                     Area("7ffe00000000-7ffe00008000", "rw-p", 32, "[stack]"));
  Write("status", "VmPTE:\t     68 kB\nVmSwap:\t      4 kB\n");
  const System here = system();
  PictureTaker taker(here, 3);
  taker.AddClaim({0x7f0000000000, 0x7f0000004000, Owner::kMapping, 2});
  taker.AddClaim({0x7f0000004000, 0x7f0000006000, Owner::kNodeleak, 0});
  taker.AddClaim({0x7f0000006000, 0x7f0000008000, Owner::kThreadStack, 0});
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(false);
  const MemoryPicture& picture = taker.picture();
  EXPECT_EQ(picture.rss_bytes, (1024u + 16 + 64 + 16 + 32) * 1024);
  EXPECT_EQ(Resident(picture, MemoryPart::kFiles), (1024u + 16) * 1024);  // with the zeroed data behind the file
  EXPECT_EQ(Resident(picture, MemoryPart::kShared), 16u * 1024);
  EXPECT_EQ(Resident(picture, MemoryPart::kMappings), 0x4000u);
  EXPECT_EQ(Resident(picture, MemoryPart::kNodeleak), 0x2000u);
  EXPECT_EQ(Resident(picture, MemoryPart::kThreadStacks), 0x2000u + 32 * 1024);
  EXPECT_EQ(Resident(picture, MemoryPart::kUnexplained), 0x8000u);
  EXPECT_EQ(SumOfParts(picture), picture.rss_bytes);
  EXPECT_EQ(taker.uses()[5].resident, 0x4000u);  // mappings of stack 2
  EXPECT_EQ(picture.page_table_bytes, 68u * 1024);
  EXPECT_EQ(picture.swapped_bytes, 4u * 1024);
}

TEST_F(FakeProc, ABlockCountsOnlyWhatIsInMemory) {
  Write("smaps", Area("10000-20000", "rw-p", 12, ""));  // three pages of sixteen
  WritePagemap(0x10, {kPresent | kExclusive, 0, kPresent | kExclusive, kPresent | kExclusive, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                      0, 0, 0});
  const System here = system();
  PictureTaker taker(here, 2);
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({0x10010, 0x2000, 1});  // the end of the first page, none of the second, 16 bytes of the third
  taker.AddBlock({0x18000, 0x8000, 1});
  taker.Finish(false);
  EXPECT_EQ(taker.uses()[2].bytes, 0xa000u);
  EXPECT_EQ(taker.uses()[2].resident, 0xff0u + 0x10);
  EXPECT_EQ(Resident(taker.picture(), MemoryPart::kBlocks), 0xff0u + 0x10);
  EXPECT_EQ(SumOfParts(taker.picture()), 3u * 4096);
}

TEST_F(FakeProc, TheBreakMayGoOnInAMapping) {
  Write("smaps", Area("10000-12000", "rw-p", 8, "[heap]") + Area("700000-800000", "rw-p", 1024, "") +
                     Area("900000-a00000", "rw-p", 1024, ""));
  const System here = system();
  PictureTaker taker(here, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({0x700010, 1999, 0});
  taker.AddBlock({0x900010, 0xff000, 0});  // a mapping of its own
  taker.Finish(false);
  ASSERT_EQ(taker.arenas().size(), 1u);
  EXPECT_EQ(taker.arenas()[0].heaps, 2u);
  EXPECT_EQ(Resident(taker.picture(), MemoryPart::kMallocFree), 0x2000u + 0x100000 - 2016);
  EXPECT_EQ(Resident(taker.picture(), MemoryPart::kUnexplained), 0u);
  EXPECT_EQ(SumOfParts(taker.picture()), taker.picture().rss_bytes);
}

// One page of four was written to; pages of zeros, as the kernel shows them by `zeros`, are not counted in smaps.
void FakeProc::ExpectPagesOfZerosToBeNoMemory(uint64_t zeros) {
  Write("smaps", Area("10000-14000", "rw-p", 4, ""));
  WritePagemap(0x10, {zeros, kPresent | kExclusive, zeros, 0});
  const System here = system();
  PictureTaker taker(here, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({0x10000, 0x4000, 0});
  taker.Finish(false);
  EXPECT_EQ(taker.uses()[0].resident, 4096u);
}

TEST_F(FakeProc, PagesThatWereOnlyReadAreNoMemory) { ExpectPagesOfZerosToBeNoMemory(kPresent); }

TEST_F(FakeProc, TheHugeZeroPageIsNoMemoryThoughItPassesForAFile) {
  constexpr uint64_t kFileOrShared = 1ull << 61;
  ExpectPagesOfZerosToBeNoMemory(kPresent | kFileOrShared);
}

TEST_F(FakeProc, WithoutPagemapTouchedPartsAreEstimatedAndItIsSaid) {
  Write("smaps", Area("10000-20000", "rw-p", 32, ""));
  const System here = system();
  PictureTaker taker(here, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({0x10000, 0x8000, 0});
  taker.Finish(false);
  EXPECT_EQ(taker.uses()[0].resident, 0x4000u);
  EXPECT_NE(taker.picture().flags & recording::kPictureApproximate, 0u);
}

TEST_F(FakeProc, WhatWasUnmappedSinceIsNoMemoryAndNoReasonToEstimate) {
  Write("smaps", Area("10000-20000", "rw-p", 32, ""));
  WritePagemap(0x10, std::vector<uint64_t>(16, 0));
  const System here = system();
  PictureTaker taker(here, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(false);
  EXPECT_EQ(taker.picture().flags & recording::kPictureApproximate, 0u);
  EXPECT_EQ(taker.picture().rss_bytes, 0u);
}

TEST_F(FakeProc, WithoutSmapsThereIsNoPicture) {
  const System here = system();
  PictureTaker taker(here, 1);
  EXPECT_FALSE(taker.ReadKernel());
}

TEST_F(FakeProc, StacksBeyondTheTableCountAsUnknown) {
  Write("smaps", Area("10000-20000", "rw-p", 64, ""));
  const System here = system();
  PictureTaker taker(here, 2);
  taker.AddClaim({0x18000, 0x20000, Owner::kMapping, 77});
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({0x10000, 16, 0xffffffff});
  taker.Finish(false);
  EXPECT_EQ(taker.uses()[0].count, 1u);
  EXPECT_EQ(taker.uses()[1].resident, 0x8000u);
}

// --- limits: mount points are absolute, so they lie in the test's folder

TEST_F(FakeProc, TheTightestGroupOfVersion2Counts) {
  Write("cgroup", "0::/pod/app\n");
  Write("mountinfo", "41 31 0:38 / " + folder_ + "/fs rw,relatime shared:1 - cgroup2 cgroup2 rw\n");
  Write("fs/pod/memory.max", "2000000\n");
  Write("fs/pod/memory.current", "1900000\n");
  Write("fs/pod/app/memory.max", "1000000\n");
  Write("fs/pod/app/memory.current", "400000\n");
  const MemoryLimit limit = ReadMemoryLimit(system(), system());
  EXPECT_EQ(limit.bytes, 2000000u);  // 100,000 left there, 600,000 in its own group
  EXPECT_EQ(limit.used_bytes, 1900000u);
}

TEST_F(FakeProc, MemoryHighIsALimitThatThrottles) {
  Write("cgroup", "0::/app\n");
  Write("mountinfo", "41 31 0:38 / " + folder_ + "/fs rw - cgroup2 cgroup2 rw\n");
  Write("fs/app/memory.max", "2000000\n");
  Write("fs/app/memory.high", "max\n");
  Write("fs/app/memory.current", "100000\n");
  EXPECT_FALSE(ReadMemoryLimit(system(), system()).throttles);
  Write("fs/app/memory.high", "1500000\n");
  const MemoryLimit limit = ReadMemoryLimit(system(), system());
  EXPECT_EQ(limit.bytes, 1500000u);
  EXPECT_TRUE(limit.throttles);
}

TEST_F(FakeProc, Version1TellsOfLimitsThatItDoesNotShow) {
  Write("cgroup", "4:memory:/pod/app\n");
  Write("mountinfo", "35 31 0:32 /pod/app " + folder_ + "/fs rw - cgroup cgroup rw,memory\n");
  Write("fs/memory.limit_in_bytes", "900000\n");
  Write("fs/memory.usage_in_bytes", "100000\n");
  Write("fs/memory.stat", "cache 1\nhierarchical_memory_limit 600000\nhierarchical_memsw_limit 700000\n");
  const MemoryLimit limit = ReadMemoryLimit(system(), system());
  EXPECT_EQ(limit.bytes, 600000u);
  EXPECT_EQ(limit.used_bytes, 100000u);
}

// unshare --cgroup --mount; mount -t cgroup2 none /sys/fs/cgroup
TEST_F(FakeProc, AMountOverAnotherIsTheOneThatIsSeen) {
  Write("cgroup", "0::/\n");
  Write("mountinfo", "20 19 0:18 /../.. " + folder_ + "/fs rw - cgroup2 none rw\n26 20 0:18 / " + folder_ +
                         "/fs rw - cgroup2 none rw\n");
  Write("fs/memory.max", "700000\n");
  EXPECT_EQ(ReadMemoryLimit(system(), system()).bytes, 700000u);
}

TEST_F(FakeProc, AVersion1ContainerSeesItsGroupAsTheRoot) {
  Write("cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
  Write("mountinfo", "35 31 0:32 /docker/abc " + folder_ + "/fs/memory rw - cgroup cgroup rw,memory\n");
  Write("fs/memory/memory.limit_in_bytes", "536870912\n");
  Write("fs/memory/memory.usage_in_bytes", "123\n");
  EXPECT_EQ(ReadMemoryLimit(system(), system()).bytes, 536870912u);
}

TEST_F(FakeProc, ANamespaceMountsItsRoot) {
  Write("cgroup", "0::/\n");
  Write("mountinfo", "41 31 0:38 / " + folder_ + "/fs rw - cgroup2 cgroup rw,nsdelegate\n");
  Write("fs/memory.max", "700000\n");
  EXPECT_EQ(ReadMemoryLimit(system(), system()).bytes, 700000u);
}

TEST_F(FakeProc, MaxAndHugeNumbersAreNoLimit) {
  Write("cgroup", "4:memory:/a\n0::/a\n");
  Write("mountinfo",
        "1 1 0:1 / " + folder_ + "/one rw - cgroup c rw,memory\n1 1 0:2 / " + folder_ + "/two rw - cgroup2 c rw\n");
  Write("one/a/memory.limit_in_bytes", "9223372036854771712\n");
  Write("two/a/memory.max", "max\n");
  EXPECT_EQ(ReadMemoryLimit(system(), system()).bytes, 0u);
}

// --- glibc's heaps, of this process

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(MallocHeaps, AWalkFindsWhatMallocSaysIsFree) {
  std::vector<void*> blocks;
  blocks.reserve(20'000);
  for (int i = 0; i < 20'000; ++i) blocks.push_back(malloc(1999));
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i % 10 != 0) free(blocks[i]);
  }
  const System self = {Call, Map, Unmap, "/proc/self", getpid()};
  PictureTaker taker(self, 1);
  ASSERT_TRUE(taker.ReadKernel());
  const struct mallinfo2 before = mallinfo2();
  taker.Finish(true);
  ASSERT_FALSE(taker.arenas().empty());
  const recording::MemoryArena& main = taker.arenas()[0];
  EXPECT_EQ(main.flags, uint32_t{recording::kArenaMain | recording::kArenaWalked});
  // malloc counts the chunks of its small bins as free, the walk as in use.
  EXPECT_NEAR(static_cast<double>(main.free_bytes + main.top_bytes), static_cast<double>(before.fordblks), 200'000);
  EXPECT_GE(main.largest_free_bytes, 9u * 2000);
  EXPECT_GE(main.free_chunks, 1900u);
  for (size_t i = 0; i < blocks.size(); i += 10) free(blocks[i]);
}

TEST(MallocHeaps, AHeapThatGrowsMeanwhileEndsWhereItEnded) {
  constexpr size_t kMapped = 8 * kPage;
  char* memory = static_cast<char*>(Map(kMapped));
  const auto set_size = [&](size_t at, uint64_t size) { memcpy(memory + at + sizeof size, &size, sizeof size); };
  set_size(0, kPage | 1);
  set_size(kPage, (kMapped - kPage) | 1);
  const System self = {Call, Map, Unmap, "/proc/self", getpid()};
  const uint64_t start = reinterpret_cast<uint64_t>(memory);
  uint64_t budget = 1000;
  const HeapWalk walk = WalkHeap(self, {start, start + 4 * kPage, 0, true}, &budget);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.in_use_bytes, kPage);
  EXPECT_EQ(walk.top_bytes, 3 * kPage);
  set_size(kPage, (1ull << 40) | 1);  // nothing is mapped there
  EXPECT_FALSE(WalkHeap(self, {start, start + 4 * kPage, 0, true}, &budget).complete);
  Unmap(memory, kMapped);
}

// Memory in which a test writes what malloc would.
class HandMadeHeap : public FakeProc {
 protected:
  static constexpr size_t kHeap = 64ull << 20;

  HandMadeHeap() : reserved_(static_cast<char*>(Map(2 * kHeap))) {
    memory_ = reserved_ + (kHeap - reinterpret_cast<uint64_t>(reserved_) % kHeap) % kHeap;
  }
  ~HandMadeHeap() override { Unmap(reserved_, 2 * kHeap); }

  uint64_t start() const { return reinterpret_cast<uint64_t>(memory_); }
  void SetWord(size_t at, uint64_t word) const { memcpy(memory_ + at, &word, sizeof word); }
  void SetSize(size_t at, uint64_t size) const { SetWord(at + sizeof size, size); }
  // struct _heap_info of an arena that lies in another heap.
  void SetHead(uint64_t arena, uint64_t size) const {
    SetWord(0, arena);
    SetWord(16, size);
    SetWord(24, kHeap);
  }
  void SetRegion(size_t at, size_t bytes) const {
    SetSize(at, 0x1000 | 1);
    SetSize(at + 0x1000, (bytes - 0x1020) | 1);
    SetSize(at + bytes - 0x20, 0x10 | 1);
    SetSize(at + bytes - 0x10, 0x10 | 1);
  }
  HeapWalk Walk(size_t bytes, uint64_t arena) const {
    const System self = {Call, Map, Unmap, "/proc/self", getpid()};
    uint64_t budget = 1000;
    return WalkHeap(self, {start(), start() + bytes, arena, arena == 0}, &budget);
  }
  // A picture of an area of that many pages at the start of the memory.
  std::string AreaOfPages(size_t pages) const {
    char range[64];
    snprintf(range, sizeof range, "%lx-%lx", start(), start() + pages * kPage);
    return Area(range, "rw-p", static_cast<int>(pages * 4), "");
  }
  System ProcessBehind(const std::string& smaps) const {
    Write("smaps", smaps);
    return {Call, Map, Unmap, folder_.c_str(), getpid()};
  }

  char* const reserved_;
  char* memory_;
};

TEST_F(HandMadeHeap, ABreakThatWasGivenBackMeanwhileEndsWhereItEnds) {
  SetSize(0, 0x1000 | 1);
  SetSize(0x1000, 0x3000 | 1);  // the last one
  ASSERT_EQ(munmap(memory_ + 0x4000, 0x4000), 0);
  const HeapWalk walk = Walk(0x8000, 0);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.in_use_bytes, 0x1000u);
  EXPECT_EQ(walk.top_bytes, 0x3000u);
  SetSize(0x1000, 0x3010 | 1);  // into the hole, but not at its edge
  EXPECT_FALSE(Walk(0x8000, 0).complete);
}

TEST_F(HandMadeHeap, AnArenaThatShrankMeanwhileIsWalkedAsItIsNow) {
  const uint64_t arena = start() - kHeap + 0x30;
  SetHead(arena, 0x2000);
  SetSize(0x30, 0x1000 | 1);
  SetSize(0x1030, (0x2000 - 0x1030) | 1);
  const HeapWalk walk = Walk(0x8000, arena);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.in_use_bytes, 0x1000u);
  EXPECT_EQ(walk.top_bytes, 0x2000u - 0x1030);
}

TEST_F(HandMadeHeap, TheBreakMayHoldFenceposts) {
  SetRegion(0, 0x3000);
  SetSize(0x3000, 0x5000 | 1);
  HeapWalk walk = Walk(0x8000, 0);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.top_bytes, 0x5000u);
  SetSize(0x1000, (0x3000 - 0x1030) | 1);  // and 16 bytes that are too few for a chunk
  SetSize(0x2fd0, 0x10 | 1);
  walk = Walk(0x8000, 0);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.in_use_bytes, 0x2fd0u);
}

// Another thread joins chunks under the first walk.
uint64_t* g_astray = nullptr;
int g_reads_astray = 0;
long CallThatIsAstray(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_process_vm_readv && --g_reads_astray == 0) *g_astray = 0x7000 | 1;
  return Call(number, a, b, c, d, e, f);
}

TEST_F(HandMadeHeap, AWalkThatWentAstrayIsMadeAgain) {
  SetSize(0, 0x1000 | 1);
  SetSize(0x1000, 3);  // what a chunk that was joined with another one may be overwritten with
  const System self = {CallThatIsAstray, Map, Unmap, "/proc/self", getpid()};
  g_astray = reinterpret_cast<uint64_t*>(memory_ + 0x1008);
  g_reads_astray = 3;
  uint64_t budget = 1000;
  const HeapWalk walk = WalkHeap(self, {start(), start() + 0x8000, 0, true}, &budget);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.in_use_bytes, 0x1000u);
  SetSize(0x1000, 3);  // for good
  EXPECT_FALSE(WalkHeap(self, {start(), start() + 0x8000, 0, true}, &budget).complete);
}

TEST_F(HandMadeHeap, ABlockWhereAnArenaHasGrownSinceIsThatArenas) {
  const uint64_t arena = start() + 0x30;
  SetHead(arena, 0x3000);
  SetSize(0x8d0, (0x3000 - 0x8d0) | 1);
  const System process = ProcessBehind(AreaOfPages(8));
  PictureTaker taker(process, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.AddBlock({start() + 0x5010, 100, 0});
  taker.Finish(true);
  ASSERT_EQ(taker.arenas().size(), 1u);
  EXPECT_EQ(taker.arenas()[0].address, arena);
  EXPECT_EQ(taker.arenas()[0].flags, uint32_t{recording::kArenaWalked});
}

TEST_F(HandMadeHeap, AnArenaThatGrewBeforeItsHeadWasReadIsFound) {
  const uint64_t arena = start() + 0x30;
  SetHead(arena, 0x6000);
  SetSize(0x8d0, (0x6000 - 0x8d0) | 1);
  const System process = ProcessBehind(AreaOfPages(4));
  PictureTaker taker(process, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(true);
  ASSERT_EQ(taker.arenas().size(), 1u);
  EXPECT_EQ(taker.arenas()[0].resident, 4 * kPage);
  EXPECT_EQ(taker.arenas()[0].flags, uint32_t{recording::kArenaWalked});
}

TEST_F(HandMadeHeap, RegionsBehindWhatOthersMappedAreFound) {
  SetRegion(0x2000, 0x3000);
  SetRegion(0x5000, 0x3000);
  const System process = ProcessBehind(AreaOfPages(8));
  PictureTaker taker(process, 1);
  taker.AddClaim({start(), start() + 0x2000, Owner::kNodeleak, 0});
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(true);
  ASSERT_EQ(taker.arenas().size(), 1u);
  EXPECT_EQ(taker.arenas()[0].resident, 0x6000u);
  EXPECT_EQ(taker.arenas()[0].flags, uint32_t{recording::kArenaMain | recording::kArenaWalked});
  EXPECT_EQ(Resident(taker.picture(), MemoryPart::kUnexplained), 0u);
}

TEST(MallocHeaps, AHeapThatIsNotOneIsNotWalked) {
  const size_t bytes = 1 << 20;
  char* memory = static_cast<char*>(Map(bytes));
  memset(memory, 0x5a, bytes);
  const System self = {Call, Map, Unmap, "/proc/self", getpid()};
  const uint64_t start = reinterpret_cast<uint64_t>(memory);
  uint64_t budget = 1000;
  EXPECT_FALSE(WalkHeap(self, {start, start + bytes, 0, true}, &budget).complete);
  EXPECT_FALSE(WalkHeap(self, {start, start + bytes, start + 0x30, true}, &budget).complete);
  EXPECT_FALSE(WalkHeap(self, {8, 4096, 0, true}, &budget).complete);  // not readable
  Unmap(memory, bytes);
}

// What malloc leaves where something lies behind the break: mappings that grew downwards, each closed by fenceposts.
TEST(MallocHeaps, RegionsBesideOneAnotherAreWalkedToTheEnd) {
  constexpr size_t kRegion = 3 * 4096, kRegions = 2;
  char* memory = static_cast<char*>(Map(kRegions * kRegion));
  const auto set_size = [&](size_t at, uint64_t size) { memcpy(memory + at + sizeof size, &size, sizeof size); };
  for (size_t region = 0; region < kRegions * kRegion; region += kRegion) {
    set_size(region, 0x1000 | 1);           // in use
    set_size(region + 0x1000, 0x1800 | 1);  // free
    set_size(region + 0x2800, 0x7e0);       // in use, up to the fenceposts
    set_size(region + kRegion - 0x20, 0x10 | 1);
    set_size(region + kRegion - 0x10, 0x10 | 1);
  }
  const System self = {Call, Map, Unmap, "/proc/self", getpid()};
  const uint64_t start = reinterpret_cast<uint64_t>(memory);
  uint64_t budget = 1000;
  const HeapWalk walk = WalkHeap(self, {start, start + kRegions * kRegion, 0, true, true}, &budget);
  EXPECT_TRUE(walk.complete);
  EXPECT_EQ(walk.free_bytes, kRegions * 0x1800);
  EXPECT_EQ(walk.free_chunks, kRegions);
  EXPECT_EQ(walk.in_use_bytes, kRegions * (0x1000 + 0x7e0));

  // Found where they begin an area, up to the last fenceposts.
  PageArray<Area> areas(self);
  Area area = {};
  area.start = start;
  area.end = start + kRegions * kRegion;
  area.kind = AreaKind::kAnonymous;
  area.resident = area.writable = kPage;
  ASSERT_TRUE(areas.Append(area));
  Residency residency(self);
  residency.Read(self, &areas);
  const auto found = [&] {
    PageArray<MallocHeap> heaps(self);
    EXPECT_TRUE(FindMallocHeaps(self, areas, residency, &heaps));
    return heaps.empty() ? 0 : heaps[0].end - heaps[0].start;
  };
  EXPECT_EQ(found(), kRegions * kRegion);
  set_size(kRegion, 7);  // what lies behind the first region is none
  EXPECT_EQ(found(), kRegion);
  set_size(0, kRegions * kRegion | 1);  // a header of somebody else's
  EXPECT_EQ(found(), 0u);
  Unmap(memory, kRegions * kRegion);
}

// Where a heap or a region might begin, and nobody has been yet.
TEST(Picture, LookingTouchesNoPage) {
  constexpr size_t kBytes = 192ull << 20;
  char* memory = static_cast<char*>(Map(kBytes));
  ASSERT_NE(memory, nullptr);
  memory[5 * kPage] = 1;
  const auto count_present = [&] {
    std::vector<uint64_t> entries(kBytes / kPage);
    const int fd = open("/proc/self/pagemap", O_RDONLY);
    EXPECT_EQ(pread(fd, entries.data(), entries.size() * 8,
                    static_cast<off_t>(reinterpret_cast<uint64_t>(memory) / kPage * 8)),
              static_cast<ssize_t>(entries.size() * 8));
    close(fd);
    return std::count_if(entries.begin(), entries.end(), [](uint64_t entry) { return (entry & kPresent) != 0; });
  };
  const auto before = count_present();
  const System self = {Call, Map, Unmap, "/proc/self", getpid()};
  PictureTaker taker(self, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(true);
  EXPECT_EQ(count_present(), before);
  Unmap(memory, kBytes);
}

TEST(Picture, OfThisProcessAddsUpToItsRss) {
  PictureTaker taker(kOwnProcess, 1);
  ASSERT_TRUE(taker.ReadKernel());
  taker.Finish(false);
  EXPECT_GT(taker.picture().rss_bytes, 1u << 20);
  // The kernel says the RSS and the areas one after the other, and we touch memory in between.
  const auto rss = static_cast<double>(taker.picture().rss_bytes);
  EXPECT_NEAR(static_cast<double>(SumOfParts(taker.picture())), rss, rss * 0.03);
}
#endif

}  // namespace
}  // namespace nodeleak::memory
