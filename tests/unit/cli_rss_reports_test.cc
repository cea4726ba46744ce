#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/rss_reports.h"
#include "recording/process.h"
#include "tests/support/recording_builder.h"

namespace nodeleak::cli {
namespace {

using ::testing::ElementsAre;

TEST(RssReportNames, AreThoseOfTheReportsWithASuffix) {
  EXPECT_THAT(RssReportNames({"leaks.json", "-", "out/a.b.txt"}, true),
              ElementsAre("leaks.rss.json", "out/a.b.rss.txt"));
}

TEST(RssReportNames, OtherProcessesHaveTheirPidInTheName) {
  EXPECT_THAT(RssReportNames({"leaks.json", "%p.txt"}, false), ElementsAre("leaks.%p.rss.json", "%p.rss.txt"));
}

TEST(RssReportNames, WithoutReportsThereIsATextBesideTheRecording) {
  EXPECT_THAT(RssReportNames({}, true), ElementsAre("nodeleak.%n.%p.rss.txt"));
  EXPECT_THAT(RssReportNames({"-"}, false), ElementsAre("nodeleak.%n.%p.rss.txt"));
}

TEST(OnRss, IsASizeAbove0) {
  const std::vector<std::string> good = {"--on-rss=1.5GiB", "node"}, bad = {"--on-rss=0", "node"};
  EXPECT_EQ(ParseCommandLine(good)->settings.on_rss_bytes, 3ull << 29);
  EXPECT_FALSE(ParseCommandLine(bad).ok());
}

TEST(Rss, TakesAFormatAndNoReports) {
  const std::vector<std::string> good = {"rss", "--format=json", "4242"}, bad = {"rss", "--report=a.txt", "4242"};
  EXPECT_EQ(ParseCommandLine(good)->command, Command::kRss);
  EXPECT_FALSE(ParseCommandLine(bad).ok());
}

TEST(Rss, SaysThatARecordingStoppedBeforeItsProcess) {
  recording::RecordingBuilder builder;
  builder.header().pid = static_cast<uint32_t>(getpid());
  builder.header().process_start_ticks = recording::ProcessStartTicks(builder.header().pid).value_or(0);
  builder.header().frozen_ns = 1'999'000'000;
  builder.header().freeze_reason = static_cast<uint32_t>(recording::FreezeReason::kTrouble);
  recording::MemoryPicture peak = {};
  peak.sequence = 2;
  peak.moment = static_cast<uint32_t>(recording::PictureMoment::kPeak);
  builder.AddPicture(peak, {}, {});
  const std::string path = testing::TempDir() + "rss_stopped." + std::to_string(getpid()) + ".rec";
  ASSERT_TRUE(builder.WriteTo(path));
  Invocation invocation;
  invocation.operands = {path};
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const int status = RssCommand(invocation);
  const std::string shown = testing::internal::GetCapturedStdout();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("stopped 1999 ms after its start"));
  EXPECT_EQ(status, 0);
  EXPECT_THAT(shown, testing::HasSubstr("on the way to its peak"));
  unlink(path.c_str());
}

}  // namespace
}  // namespace nodeleak::cli
