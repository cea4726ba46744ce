#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "cli/file_names.h"
#include "cli/options.h"
#include "cli/quantities.h"

namespace nodeleak::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Invocation Parsed(std::vector<std::string> arguments) {
  absl::StatusOr<Invocation> invocation = ParseCommandLine(arguments);
  EXPECT_TRUE(invocation.ok()) << invocation.status();
  return invocation.value_or(Invocation());
}

std::string ErrorOf(std::vector<std::string> arguments) {
  absl::StatusOr<Invocation> invocation = ParseCommandLine(arguments);
  EXPECT_FALSE(invocation.ok());
  return std::string(invocation.status().message());
}

TEST(CommandLine, RunIsTheDefaultAndOptionsBehindTheProgramBelongToIt) {
  Invocation invocation = Parsed({"--gc=off", "node", "--quiet", "app.js"});
  EXPECT_EQ(invocation.command, Command::kRun);
  EXPECT_FALSE(invocation.settings.gc_at_end);
  EXPECT_FALSE(invocation.settings.quiet);
  EXPECT_THAT(invocation.operands, ElementsAre("node", "--quiet", "app.js"));
}

TEST(CommandLine, TwoDashesEndTheOptions) {
  EXPECT_THAT(Parsed({"run", "--", "--odd-program", "x"}).operands, ElementsAre("--odd-program", "x"));
}

TEST(CommandLine, ReportTakesOptionsBehindTheRecording) {
  Invocation invocation = Parsed({"report", "a.rec", "--top=7", "--format", "json"});
  EXPECT_EQ(invocation.command, Command::kReport);
  EXPECT_EQ(invocation.settings.top, 7u);
  EXPECT_EQ(invocation.settings.format, "json");
  EXPECT_THAT(invocation.operands, ElementsAre("a.rec"));
}

TEST(CommandLine, ReportMayBeRepeated) {
  EXPECT_THAT(Parsed({"--report=a.txt", "--report=%p.json", "--report=-", "node"}).settings.reports,
              ElementsAre("a.txt", "%p.json", "-"));
}

TEST(CommandLine, AnUnknownOptionNamesTheNearest) {
  EXPECT_EQ(ErrorOf({"--heap", "node"}), "unknown option --heap (nodeleak --help lists all)");
  EXPECT_EQ(ErrorOf({"-x", "node"}), "unknown option -x (nodeleak --help lists all)");
  EXPECT_THAT(ErrorOf({"--chidlren=all", "node"}), HasSubstr("unknown option --chidlren; did you mean --children?"));
}

TEST(CommandLine, ABadValueNamesItsOption) {
  EXPECT_THAT(ErrorOf({"--sample=12parsecs", "node"}), HasSubstr("option --sample: '12parsecs' is not a size"));
  EXPECT_THAT(ErrorOf({"--children=some", "node"}), HasSubstr("none of node, all, none"));
}

TEST(CommandLine, ReportsOfLaterVersionsAreRefusedBeforeTheRun) {
  EXPECT_THAT(ErrorOf({"--report=x.pb.gz", "node"}), HasSubstr(".pb.gz reports are not in this version yet"));
  EXPECT_THAT(ErrorOf({"--report=x.docx", "node"}), HasSubstr("cannot tell the format"));
}

TEST(CommandLine, OptionsOfAnotherCommandAreRefused) {
  EXPECT_THAT(ErrorOf({"report", "--children=all", "x.rec"}), HasSubstr("not one of nodeleak report"));
}

TEST(CommandLine, CollectionsTakeAProcessOrItsRecording) {
  EXPECT_EQ(Parsed({"gc", "4242"}).command, Command::kGc);
  EXPECT_EQ(Parsed({"gc", "--top=3", "x.rec"}).operands, std::vector<std::string>{"x.rec"});
  EXPECT_THAT(ErrorOf({"gc"}), HasSubstr("nodeleak gc [options] PID|RECORDING"));
  EXPECT_THAT(ErrorOf({"gc", "--children=all", "4242"}), HasSubstr("not one of nodeleak gc"));
}

TEST(CommandLine, ACopyIsMadeAfterAFullGcUnlessItIsSwitchedOff) {
  const Invocation copy = Parsed({"snapshot", "4242", "-o", "copy.rec"});
  EXPECT_EQ(copy.command, Command::kSnapshot);
  EXPECT_TRUE(copy.settings.gc_at_end);
  EXPECT_EQ(copy.settings.output, "copy.rec");
  EXPECT_FALSE(Parsed({"snapshot", "--gc=off", "x.rec", "-o", "copy.rec"}).settings.gc_at_end);
  EXPECT_THAT(ErrorOf({"snapshot"}), HasSubstr("PID|RECORDING -o FILE"));
}

TEST(CommandLine, FailOnTakesASize) {
  EXPECT_EQ(Parsed({"--fail-on=growing", "node"}).settings.fail_on->min_bytes, 0u);
  EXPECT_EQ(Parsed({"--fail-on=growing:3KiB", "node"}).settings.fail_on->min_bytes, 3072u);
  EXPECT_THAT(ErrorOf({"--fail-on=growling", "node"}), HasSubstr("growing:SIZE"));
}

TEST(CommandLine, WithoutACommandItSaysWhatToType) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("nodeleak node server.js"));
  EXPECT_THAT(ErrorOf({"report"}), HasSubstr("needs a recording"));
}

TEST(Help, NamesEveryOptionWithin100Columns) {
  std::string help = HelpText();
  for (const char* name : {"--output", "--report", "--format", "--group-by", "--top", "--min-bytes", "--sample",
                           "--children", "--gc", "--fail-on", "--max-recording", "--quiet"})
    EXPECT_THAT(help, HasSubstr(name));
  for (absl::string_view line : absl::StrSplit(help, '\n')) EXPECT_LE(line.size(), 100u) << std::string(line);
}

TEST(Quantities, KeepDecimalAndBinaryUnitsApart) {
  EXPECT_EQ(*ParseSize("1999"), 1999u);
  EXPECT_EQ(*ParseSize("64KiB"), 65536u);
  EXPECT_EQ(*ParseSize("1.5 MB"), 1500000u);
  EXPECT_EQ(*ParseSize("2g"), 2ull << 30);
  EXPECT_EQ(*ParseDuration("250ms"), 250u);
  EXPECT_EQ(*ParseDuration("2m"), 120000u);
  EXPECT_EQ(*ParseDuration("60"), 60000u);
  for (const char* bad : {"", "KB", "-5", "1..5", "9999999999999999999999", "5 parsecs"})
    EXPECT_FALSE(ParseSize(bad).ok()) << bad;
}

TEST(FileNames, ExpandPidAndProgram) {
  ProcessName child = {50021, "node", false};
  EXPECT_EQ(ExpandFileName("r.%n.%p.json", child, true), "r.node.50021.json");
  EXPECT_EQ(ExpandFileName("100%%.txt", child, false), "100%.txt");
  EXPECT_EQ(ExpandFileName("50%", child, false), "50%");
}

TEST(FileNames, WithoutAPidOnlyTheCommandItselfKeepsTheName) {
  ProcessName root = {1999, "node", true}, child = {50021, "node", false};
  EXPECT_EQ(ExpandFileName("d.x/out.json", root, true), "d.x/out.json");
  EXPECT_EQ(ExpandFileName("d.x/out.json", child, true), "d.x/out.50021.json");
  EXPECT_EQ(ExpandFileName("d.x/out", child, true), "d.x/out.50021");
  EXPECT_EQ(ExpandFileName("out.pb.gz", child, true), "out.50021.pb.gz");
  EXPECT_EQ(ExpandFileName("out.json", child, false), "out.json");
}

TEST(FileNames, RecordingTemplateIsAbsolute) {
  EXPECT_EQ(RecordingTemplate("", "/"), "/nodeleak.%n.%p.rec");
  EXPECT_EQ(RecordingTemplate("x.rec", "/srv"), "/srv/x.rec");
  EXPECT_EQ(RecordingTemplate("/tmp/x.rec", "/srv"), "/tmp/x.rec");
}

}  // namespace
}  // namespace nodeleak::cli
