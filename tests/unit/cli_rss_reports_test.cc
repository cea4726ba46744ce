#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/options.h"
#include "cli/rss_reports.h"

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

}  // namespace
}  // namespace nodeleak::cli
