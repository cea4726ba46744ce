#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "recording/copy.h"
#include "recording/process.h"
#include "recording/reader.h"
#include "tests/support/recording_builder.h"

namespace nodeleak::recording {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CopyRecordingTest : public testing::Test {
 protected:
  CopyRecordingTest() {
    std::string folder = testing::TempDir() + "nodeleak_copy_XXXXXX";
    folder_ = mkdtemp(folder.data());
  }
  ~CopyRecordingTest() override {
    for (const char* name : {"from", "to", "link", "victim"}) unlink(In(name).c_str());
    EXPECT_EQ(rmdir(folder_.c_str()), 0) << "something was left behind";
  }
  std::string In(const std::string& name) const { return folder_ + "/" + name; }
  std::string CopyError() const { return std::string(CopyRecording(In("from"), In("to")).message()); }

  std::string folder_;
};

RecordingBuilder Sample() {
  RecordingBuilder builder;
  builder.SetCommand({"node", "server.js"});
  const uint32_t module = builder.AddModule("/app/addon.node");
  for (uint32_t i = 0; i < 500; ++i) {
    const uint32_t stack =
        builder.AddStack({builder.AddNativeFrame(module, i), builder.AddJsFrame("f", "/app/a.js", i)});
    builder.AddBlocks(4, 1999 + i, stack, i);
    builder.AddRange({0x10000ull * (i + 1), 0x10000ull * (i + 1) + 0x1000, stack, i, 0, 0, 3, 0});
  }
  builder.AddTimelineSample({.time_ns = 37, .rss_bytes = 50021});
  builder.AddCheckpoint(1999, 1, {{3, 1, 1, 1, 1}});
  return builder;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST_F(CopyRecordingTest, TheCopySaysTheSame) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  ASSERT_EQ(CopyError(), "");
  absl::StatusOr<Recording> from = ReadRecording(In("from")), to = ReadRecording(In("to"));
  ASSERT_TRUE(from.ok() && to.ok()) << from.status() << to.status();
  EXPECT_THAT(to->damage, IsEmpty());
  EXPECT_EQ(to->process.ending, Ending::kKilled);
  EXPECT_EQ(to->process.command, from->process.command);
  EXPECT_EQ(to->totals.live_bytes, from->totals.live_bytes);
  EXPECT_EQ(to->totals.live_blocks, 2000u);
  EXPECT_EQ(to->stacks.size(), from->stacks.size());
  EXPECT_EQ(to->ranges.size(), 500u);
  EXPECT_EQ(to->timeline.size(), 1u);
  EXPECT_EQ(to->checkpoints.size(), 1u);
  for (uint32_t i = 0; i < to->stacks.size(); ++i) ASSERT_EQ(to->FramesOfStack(i), from->FramesOfStack(i));
}

TEST_F(CopyRecordingTest, OnlyTheOwnerMayReadIt) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  const mode_t before = umask(0);
  EXPECT_EQ(CopyError(), "");
  umask(before);
  struct stat status;
  ASSERT_EQ(stat(In("to").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(CopyRecordingTest, ACopyOfARunningProcessStaysOneAfterItsEnd) {
  RecordingBuilder builder = Sample();
  builder.header().pid = static_cast<uint32_t>(getpid());
  builder.header().process_start_ticks = ProcessStartTicks(builder.header().pid).value_or(0);
  ASSERT_TRUE(builder.WriteTo(In("from")));
  ASSERT_EQ(CopyError(), "");
  // The process ends: nobody has its start time any more.
  const int fd = open(In("to").c_str(), O_RDWR | O_CLOEXEC);
  const uint64_t other_ticks = 1;
  ASSERT_EQ(pwrite(fd, &other_ticks, sizeof(other_ticks), offsetof(Header, process_start_ticks)), 8);
  close(fd);
  absl::StatusOr<Recording> copy = ReadRecording(In("to"));
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->process.ending, Ending::kRunning);
  EXPECT_GT(copy->process.duration_ns, 0u);
}

TEST_F(CopyRecordingTest, DoesNotGoThroughASymbolicLink) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  ASSERT_TRUE(Sample().WriteTo(In("victim")));
  const std::string before = Contents(In("victim"));
  ASSERT_EQ(symlink(In("victim").c_str(), In("to").c_str()), 0);
  EXPECT_THAT(CopyError(), HasSubstr("to is a symbolic link"));
  EXPECT_EQ(Contents(In("victim")), before);
}

TEST_F(CopyRecordingTest, ReplacesARecordingButNothingElse) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  std::ofstream(In("to")) << "my thesis";
  EXPECT_THAT(CopyError(), HasSubstr("is there already and is not a recording"));
  EXPECT_EQ(Contents(In("to")), "my thesis");
  ASSERT_TRUE(RecordingBuilder().WriteTo(In("to")));
  EXPECT_EQ(CopyError(), "");
  EXPECT_EQ(ReadRecording(In("to"))->totals.live_blocks, 2000u);
}

TEST_F(CopyRecordingTest, DoesNotReplaceItself) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  ASSERT_EQ(link(In("from").c_str(), In("to").c_str()), 0);
  EXPECT_THAT(CopyError(), HasSubstr("it would replace itself"));
}

TEST_F(CopyRecordingTest, ADamagedRecordingIsNotMadeToLookWhole) {
  ASSERT_TRUE(Sample().WriteTo(In("from")));
  ASSERT_EQ(truncate(In("from").c_str(), static_cast<off_t>(Contents(In("from")).size() / 2)), 0);
  EXPECT_THAT(CopyError(), HasSubstr("it is damaged"));
  EXPECT_NE(access(In("to").c_str(), F_OK), 0);
}

TEST_F(CopyRecordingTest, ErrorsNameTheSource) {
  EXPECT_THAT(CopyError(), HasSubstr("cannot copy recording " + In("from") + ": cannot open it"));
}

}  // namespace
}  // namespace nodeleak::recording
