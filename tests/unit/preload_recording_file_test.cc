#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "preload/base/system.h"
#include "preload/base/writing_syscall.h"
#include "preload/recorder/recording_file.h"

namespace nodeleak::preload {
namespace {

class RecordingFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/nodeleak-file-test-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/x.rec";
  }
  void TearDown() override { ASSERT_EQ(system(("rm -rf " + directory_).c_str()), 0); }
  static std::string Contents(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  std::string directory_, path_;
  const char* why_ = "";
  static constexpr uint64_t kMax = 8 << 20;
};

TEST_F(RecordingFileTest, IsPrivateToItsOwner) {
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_)) << why_;
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(file.header()->magic, recording::kMagic);
  file.Close();
}

TEST_F(RecordingFileTest, NeverGoesThroughASymbolicLink) {
  const std::string target = directory_ + "/target";
  ASSERT_EQ(symlink(target.c_str(), path_.c_str()), 0);
  RecordingFile file;
  EXPECT_FALSE(file.Create(path_.c_str(), kMax, &why_));
  EXPECT_NE(access(target.c_str(), F_OK), 0);
  struct stat status;
  ASSERT_EQ(lstat(path_.c_str(), &status), 0);
  EXPECT_TRUE(S_ISLNK(status.st_mode));
}

TEST_F(RecordingFileTest, RefusesToOverwriteAFileThatIsNoRecording) {
  std::ofstream(path_) << "my thesis, the only copy";
  RecordingFile file;
  EXPECT_FALSE(file.Create(path_.c_str(), kMax, &why_));
  EXPECT_NE(std::string(why_).find("not a recording"), std::string::npos) << why_;
  EXPECT_EQ(Contents(path_), "my thesis, the only copy");
}

TEST_F(RecordingFileTest, ReplacesAnOldRecordingWithoutTouchingItsReaders) {
  RecordingFile old;
  ASSERT_TRUE(old.Create(path_.c_str(), kMax, &why_));
  old.header()->pid = 4242;
  const int reader = open(path_.c_str(), O_RDONLY);
  old.Close();
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_)) << why_;
  EXPECT_EQ(file.header()->pid, 0u);
  uint32_t pid = 0;
  EXPECT_EQ(pread(reader, &pid, sizeof pid, offsetof(recording::Header, pid)), static_cast<ssize_t>(sizeof pid));
  EXPECT_EQ(pid, 4242u);
  close(reader);
  file.Close();
}

TEST_F(RecordingFileTest, SaysThatTheDirectoryIsMissing) {
  RecordingFile file;
  EXPECT_FALSE(file.Create((directory_ + "/no/x.rec").c_str(), kMax, &why_));
  EXPECT_STREQ(why_, "its directory does not exist");
}

TEST_F(RecordingFileTest, StopsAtItsLimit) {
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), 1 << 20, &why_)) << why_;
  EXPECT_EQ(file.Allocate(2 << 20), 0u);
  uint64_t given = 0;
  while (file.Allocate(64 << 10) != 0) given += 64 << 10;
  EXPECT_GT(given, 0u);
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_LE(status.st_size, 1 << 20);
  file.Close();
}

TEST_F(RecordingFileTest, ReusesWhatWasReleasedAndItIsZero) {
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  const uint64_t offset = file.Allocate(12288);
  ASSERT_NE(offset, 0u);
  file.At(offset)[5000] = 'x';
  file.Release(offset, 12288);
  EXPECT_EQ(file.Allocate(12288), offset);
  EXPECT_EQ(file.At(offset)[5000], '\0');
  file.Close();
}

TEST_F(RecordingFileTest, NeighboursThatWereReleasedAreRoomForALargerOne) {
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  const uint64_t first = file.Allocate(8192), second = file.Allocate(12288), kept = file.Allocate(4096);
  ASSERT_EQ(second, first + 8192);
  file.At(second)[77] = 'x';
  file.Release(second, 12288);
  file.Release(first, 8192);
  EXPECT_EQ(file.Allocate(16384), first);
  EXPECT_EQ(file.At(second)[77], '\0');
  EXPECT_EQ(file.Allocate(4096), first + 16384) << "what was left of it";
  EXPECT_GT(file.Allocate(4096), kept);
  file.Close();
}

TEST_F(RecordingFileTest, GivesDiskBlocksBackWhenTendedAndTakesThemAgain) {
  constexpr uint64_t kBytes = 3 << 20;  // tended in pieces
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  const uint64_t offset = file.Allocate(kBytes);
  ASSERT_NE(offset, 0u);
  memset(file.At(offset), 'x', kBytes);
  const auto disk_bytes = [&] {
    struct stat status;
    return stat(path_.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
  };
  file.Release(offset, kBytes);
  const uint64_t before = disk_bytes();
  while (file.TendDisk()) continue;
  if (disk_bytes() == before) GTEST_SKIP() << "this file system frees no blocks of a file";
  EXPECT_LE(disk_bytes(), before - kBytes);
  ASSERT_EQ(file.Allocate(kBytes), offset);
  EXPECT_EQ(file.At(offset)[kBytes - 1], '\0');
  EXPECT_GE(disk_bytes(), before) << "reserved before it is touched";
  file.Close();
}

TEST_F(RecordingFileTest, ReservesAheadWhileItKeepsGrowing) {
  constexpr uint64_t kGrowth = 512 << 10;
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  struct stat status;
  uint64_t end = 0;
  const auto grow = [&] {
    end = file.Allocate(kGrowth) + kGrowth;
    const bool again = file.TendDisk();
    EXPECT_EQ(stat(path_.c_str(), &status), 0);
    return again;
  };
  file.TendDisk();
  EXPECT_FALSE(grow()) << "a program that starts";
  EXPECT_FALSE(grow());
  EXPECT_LT(static_cast<uint64_t>(status.st_size), end + 2 * kGrowth);
  EXPECT_TRUE(grow());
  EXPECT_GE(static_cast<uint64_t>(status.st_size), end + 2 * kGrowth) << "twice what it grew by";
  EXPECT_FALSE(file.TendDisk()) << "it grows no more";
  file.TrimReserve();
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), file.header()->file_bytes);
  EXPECT_NE(file.Allocate(kGrowth), 0u);
  file.Close();
}

TEST_F(RecordingFileTest, AFileSizeLimitIsARefusalNotASignal) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  rlimit limited = before;
  limited.rlim_cur = 1 << 20;
  setrlimit(RLIMIT_FSIZE, &limited);
  EXPECT_EQ(file.Allocate(4 << 20), 0u);  // would be SIGXFSZ
  setrlimit(RLIMIT_FSIZE, &before);
  file.Close();
}

// The limit may be lowered between the question and the call.
TEST_F(RecordingFileTest, AWriteBeyondTheFileSizeLimitIsNoSignal) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const int file = open(path_.c_str(), O_RDWR | O_CREAT, 0600);
  sigset_t all, mask;
  sigfillset(&all);
  for (const bool blocked : {false, true}) {
    sigprocmask(SIG_SETMASK, nullptr, &mask);
    if (blocked) sigprocmask(SIG_BLOCK, &all, nullptr);
    const rlimit none = {0, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
    const long grown = RawWritingSyscall(SYS_fallocate, file, 0, 0, 4096);
    const long written = RawWritingSyscall(SYS_write, file, reinterpret_cast<long>("x"), 1);
    setrlimit(RLIMIT_FSIZE, &before);
    sigset_t pending, after;
    sigpending(&pending);
    sigprocmask(SIG_SETMASK, &mask, &after);
    EXPECT_EQ(grown, -EFBIG);
    EXPECT_EQ(written, -EFBIG);
    EXPECT_EQ(sigismember(&pending, SIGXFSZ), 0);
    EXPECT_EQ(sigismember(&after, SIGXFSZ), blocked ? 1 : 0);
    EXPECT_EQ(RawWritingSyscall(SYS_write, file, reinterpret_cast<long>("x"), 1), 1);
  }
  close(file);
}

// Asking a full disk is slow, and each allocation of the program would ask.
TEST_F(RecordingFileTest, WhatWasRefusedIsNotAskedForAgainAtOnce) {
  constexpr uint64_t kBeforeItMayAskNs = 150'000'000;
  constexpr uint64_t kWanted = 2 << 20;
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  rlimit limited = before;
  limited.rlim_cur = 1 << 20;
  uint64_t given = 0, spent_ns = 0;
  do {  // again where this process lost the processor in between
    setrlimit(RLIMIT_FSIZE, &limited);
    const uint64_t began_ns = MonotonicNanoseconds();
    EXPECT_EQ(file.Allocate(kWanted), 0u);
    setrlimit(RLIMIT_FSIZE, &before);
    given = file.Allocate(kWanted);
    spent_ns = MonotonicNanoseconds() - began_ns;
  } while (given != 0 && spent_ns >= kBeforeItMayAskNs);
  EXPECT_EQ(given, 0u);
  EXPECT_NE(file.Allocate(4096), 0u) << "less than what was refused may be there";
  while (file.Allocate(kWanted) == 0) usleep(1000);  // room again: it is found, or this test runs into its time limit
  file.Close();
}

TEST_F(RecordingFileTest, NeverGrowsAFileThatTookOverItsDescriptor) {
  RecordingFile file;
  ASSERT_TRUE(file.Create(path_.c_str(), kMax, &why_));
  const std::string other = directory_ + "/other";
  const int fd = open(other.c_str(), O_RDWR | O_CREAT, 0600);
  for (int number = 3; number < 1024; ++number) {  // the program closes all and opens its own
    struct stat mine, theirs;
    if (number == fd || fstat(number, &mine) != 0 || stat(path_.c_str(), &theirs) != 0) continue;
    if (mine.st_ino == theirs.st_ino && mine.st_dev == theirs.st_dev) dup2(fd, number);
  }
  EXPECT_NE(file.Allocate(1 << 20), 0u) << "it is opened again by its path";
  ASSERT_EQ(rename(other.c_str(), path_.c_str()), 0);
  EXPECT_EQ(file.Allocate(1 << 20), 0u) << "another file is there now";
  struct stat status;
  ASSERT_EQ(fstat(fd, &status), 0);
  EXPECT_EQ(status.st_size, 0);
  close(fd);
  file.Close();
}

}  // namespace
}  // namespace nodeleak::preload
