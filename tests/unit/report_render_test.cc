// The renderers, from a report built by hand: text against golden files, JSON for shape and escaping.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/report.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Frame Js(std::string function, std::string file, uint32_t line, uint32_t column) {
  return {
      .type = FrameType::kJs, .function = std::move(function), .file = std::move(file), .line = line, .column = column};
}
Frame Native(std::string function, std::string module, uint64_t offset = 0x1999) {
  return {.type = FrameType::kNative, .function = std::move(function), .module = std::move(module), .offset = offset};
}
Frame Marker(std::string sentence) { return {.type = FrameType::kMarker, .function = std::move(sentence)}; }

std::vector<Frame> BufferStack() {
  return {Native("node::NodeArrayBufferAllocator::Allocate", "/opt/node/bin/node"),
          Native("v8::internal::Heap::AllocateExternalBackingStore", "/opt/node/bin/node"),
          Native("v8::internal::BackingStore::Allocate", "/opt/node/bin/node"),
          Native("v8::internal::ConstructBuffer", "/opt/node/bin/node"),
          Native("v8::internal::Builtin_ArrayBufferConstructor", "/opt/node/bin/node"),
          Js("createUnsafeBuffer", "node:internal/buffer", 1059, 12),
          Js("allocate", "node:buffer", 419, 10),
          Js("Buffer.allocUnsafe", "node:buffer", 384, 10),
          Js("onRequest", "/srv/app/src/server.js", 12, 20),
          Js("emit", "node:events", 519, 28),
          Js("parserOnIncoming", "node:_http_server", 1140, 12),
          Js("parserOnHeadersComplete", "node:_http_common", 119, 17),
          Native("v8::internal::Execution::Call", "/opt/node/bin/node"),
          Native("node::LoadEnvironment", "/opt/node/bin/node"),
          Native("__libc_start_main", "/lib/x86_64-linux-gnu/libc.so.6")};
}

Group LeakingGroup() {
  Group group;
  group.id = "00c0ffee00c0ffee";
  group.kind = Kind::kArrayBuffer;
  group.verdict = Verdict::kGrowing;
  group.confidence = Confidence::kHigh;
  group.evidence = {"blocks of every age survive: 33 % of the oldest third, 34 % of the middle, 33 % of the youngest"};
  group.live_bytes = 1999 * 21001;
  group.live_blocks = 21001;
  group.allocated_bytes = 1999 * 63003;
  group.allocations = 63003;
  group.rate = {3411000, 1706.4, 0.25, 12.3};
  group.survived_gcs = {1, 7, 14};
  group.first_seen_seconds = 0.25;
  group.last_seen_seconds = 12.3;
  group.site = Site{"onRequest", "/srv/app/src/server.js", 12, 20, ""};
  group.origin = Origin{"v8::internal::ConstructBuffer", "/opt/node/bin/node", "", 0, ""};
  group.threads = {"main"};
  group.stacks = {
      {1999 * 20000, 20000, BufferStack()},
      {1999 * 1001, 1001, {Marker("no unwind rule for this code"), Js("", "/srv/app/src/server.js", 12, 20)}}};
  return group;
}

Group StartupGroup() {
  Group group;
  group.id = "0123456789abcdef";
  group.kind = Kind::kAddon;
  group.verdict = Verdict::kStartup;
  group.confidence = Confidence::kLikely;
  group.evidence = {"allocated in the first 0.31 s, constant since"};
  group.live_bytes = 50021;
  group.live_blocks = 1;
  group.origin =
      Origin{"", "/srv/app/node_modules/@scope/canvas/build/Release/canvas.node", "", 0, "@scope/canvas@2.1.0"};
  group.threads = {"libuv pool", "worker 1"};
  group.stacks = {{50021, 1, {Native("", "/srv/app/node_modules/@scope/canvas/build/Release/canvas.node", 0x2f00d)}}};
  return group;
}

Report LeakReport() {
  Report report;
  report.process.pid = 4242;
  report.process.command = {"/opt/node/bin/node", "src/server.js", "--port=80"};
  report.process.executable = "/opt/node/bin/node";
  report.process.working_directory = "/srv/app";
  report.process.node_version = "v22.23.3";
  report.process.v8_version = "12.4.254.21-node.33";
  report.process.started_at_unix_ns = 1'764'000'000'123'000'000;
  report.process.duration_seconds = 12.3456;
  report.process.is_node = true;
  report.process.ending = Ending::kSignal;
  report.process.signal = 15;
  report.capabilities = {{"JavaScript lines", CapabilityState::kDegraded, "V8 99 is not known"}};
  report.totals = {.live_bytes = 1999 * 21001 + 50021,
                   .live_blocks = 21002,
                   .allocated_bytes = 1u << 30,
                   .allocations = 1234567,
                   .stacks = 77,
                   .major_gcs = 14};
  report.kinds = {{Kind::kArrayBuffer, 1999 * 21001, 21001}, {Kind::kV8Heap, 9u << 20, 1}, {Kind::kAddon, 50021, 1}};
  report.rss_bytes = 191'000'000;
  report.memory.at = "end";
  report.kind_verdicts = {{Kind::kArrayBuffer, Verdict::kGrowing, Confidence::kHigh, {"all of it is growing"}},
                          {Kind::kV8Heap,
                           Verdict::kGrowing,
                           Confidence::kLikely,
                           {"used after full GCs: 4.0 MiB at 1.20 s, 9.0 MiB at 12.3 s (4 full GCs)"},
                           {450000, 0, 1.2, 12.3},
                           "take a heap snapshot: kill -USR2 4242"},
                          {Kind::kAddon, Verdict::kStartup, Confidence::kLikely, {"all of it is startup"}}};
  report.memory.rss_bytes = 191'000'000;
  report.memory.lines = {
      {"malloc: free, but kept",
       80'000'000,
       80'000'000,
       "main arena: 7,001 free runs, largest 48.0 KiB, 0 B at its end",
       {{"main arena", 130'000'000, 80'000'000, "7,001 free runs, largest 48.0 KiB, 0 B at its end"}}},
      {"program and files", 120'000'000, 55'000'000, "code and data, mapped files"},
      {"array-buffer", 1999 * 21001, 1999 * 21001, ""},
      {"JavaScript heap", 20'000'000, 12'000'000, "old_space 9.0 MiB"},
      {"addon @scope/canvas@2.1.0", 50021, 50021, ""},
      {"unexplained", 1'968'980, 1'968'980, ""},
      {"reserved", 10ull << 30, 0, "address space, not memory"}};
  report.memory.limit_bytes = 256u << 20;
  report.memory.limit_used_bytes = 201'000'000;
  report.outlook = {3'861'000, 17.5};
  report.memory.advice = {"76.3 MiB of 182.2 MiB is free memory that malloc keeps, no leak"};
  report.other_memory = {{"peak", 9.25, 299'000'000, {{"array-buffer", 199'000'000, 199'000'000, ""}}}};
  report.timeline = {{1.5, 100, 50, 25, 1, {{Kind::kArrayBuffer, 50, 1}}}};
  report.groups = {StartupGroup(), LeakingGroup()};
  report.warnings = {"3 blocks (1.2 KiB) were not recorded: the recording reached its limit (--max-recording)"};
  report.garbage_bytes = 3'000'000;
  report.turns_at_end = 2;
  return report;
}

std::filesystem::path GoldenPath(const std::string& name) {
  return std::filesystem::path(__FILE__).parent_path().parent_path() / "golden" / name;
}

// NODELEAK_UPDATE_GOLDEN=1 writes the files anew; the diff is then for a person to read.
void ExpectGolden(const std::string& name, const std::string& actual) {
  if (std::getenv("NODELEAK_UPDATE_GOLDEN") != nullptr) std::ofstream(GoldenPath(name)) << actual;
  std::stringstream expected;
  expected << std::ifstream(GoldenPath(name)).rdbuf();
  EXPECT_EQ(actual, expected.str()) << "golden file " << name;
}

void ExpectFits(const std::string& text, int columns) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::string_view std_line(line.data(), line.size());
    EXPECT_LE(DisplayWidth(std_line), columns) << std_line;
  }
}

TEST(RenderText, PagesOfTheJavaScriptHeapAreNotNamedUnderTheSumOfGarbage) {
  Report report = LeakReport();
  report.groups[0].kind = Kind::kV8Heap;
  report.groups[0].garbage_bytes = 1'999'999;
  report.groups[1].garbage_bytes = 2'999'999;
  const std::string text = RenderText(report, TextOptions());
  const size_t begin = text.find("the full GC at the end freed");
  const std::string lines = text.substr(begin, text.find("not counted", begin + 100) - begin);
  EXPECT_THAT(lines, HasSubstr(FormatBytes(2'999'999)));
  EXPECT_THAT(lines, Not(HasSubstr("v8-heap")));
}

TEST(RenderText, LeakReportReadsAsInTheGoldenFile) { ExpectGolden("report_leak.txt", RenderText(LeakReport(), {})); }

TEST(RenderText, EveryLineFitsInTheColumns) {
  Report report = LeakReport();
  const std::string deep(300, 'd');
  const std::string wide = "/データ/" + std::string(60, 'x') + "/漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字.js";
  report.process.command = {"node", deep};
  report.process.working_directory = "/" + deep;
  report.warnings.push_back(deep + deep);
  report.groups[1].site = Site{wide, wide, 123456, 654321, deep};
  report.groups[1].origin = Origin{deep, deep, deep, 1, deep};
  report.groups[1].stacks[0].frames.push_back(Js(wide, wide, 123456, 654321));
  report.groups[1].stacks[0].frames.push_back(Native(deep, deep));
  report.groups[1].stacks[0].frames.push_back(Marker(deep));
  report.groups[1].threads = {deep};
  report.groups[1].evidence = {deep, wide};
  for (int columns : {72, 80, 100}) ExpectFits(RenderText(report, {.columns = columns}), columns);
}

TEST(RenderText, ColourOnlyWhenTold) {
  EXPECT_THAT(RenderText(LeakReport(), {.color = false}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(RenderText(LeakReport(), {.color = true}), HasSubstr("\x1b[1;31m"));
}

TEST(RenderText, HostileNamesDoNotReachTheTerminal) {
  Report report = LeakReport();
  report.process.command = {"node\x1b]0;owned\x07", "a\nb"};
  report.groups[1].site->function = "f\x1b[2J\r\xE2\x80\xAE";
  report.groups[1].stacks[0].frames[5].function = "g\x9b[2J\xff";
  const std::string text = RenderText(report, {});
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, Not(HasSubstr("\x07")));
  EXPECT_THAT(text, Not(HasSubstr("\xE2\x80\xAE")));
}

TEST(RenderText, TopLeavesOutAndSaysSo) {
  const std::string text = RenderText(LeakReport(), {.top = 1});
  EXPECT_THAT(text, HasSubstr("1 smaller group with 48.8 KiB (--top=0 shows all)"));
  EXPECT_THAT(text, Not(HasSubstr("canvas")));
}

TEST(RenderText, WhatWasNotRecordedMayGrow) {
  Report report;
  report.totals.lost = {.blocks = 1999, .stacks = 0, .bytes = 50021};
  EXPECT_THAT(RenderText(report, {}), HasSubstr("Nothing is seen to grow.\nBut not all could be recorded: see"));
}

TEST(RenderText, AnEmptyReportIsStillASentence) {
  EXPECT_THAT(RenderText(Report{}, {}), HasSubstr("Nothing is seen to grow.\n\n"));
}

TEST(RenderJson, LeakReportReadsAsInTheGoldenFile) { ExpectGolden("report_leak.json", RenderJson(LeakReport())); }

TEST(RenderJson, AnyBytesBecomeValidUtf8) {
  Report report = LeakReport();
  report.process.command = {std::string("\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80\xe2\x28\"\\\n\0", 16)};
  const std::string json = RenderJson(report);
  std::string_view rest = json;
  std::string again;
  while (!rest.empty()) AppendCodePoint(TakeCodePoint(&rest), &again);
  EXPECT_EQ(json, again);
  EXPECT_THAT(json, HasSubstr("(\\\"\\\\\\n\\u0000"));
}

TEST(RenderFolded, OutermostFirstBytesLast) {
  const std::string folded = RenderFolded(LeakReport());
  EXPECT_THAT(folded, HasSubstr("__libc_start_main;"));
  EXPECT_THAT(folded, HasSubstr(";onRequest server.js:12;"));
  EXPECT_THAT(folded, HasSubstr("[array-buffer] 39980000\n"));
}

TEST(Render, SaysWhichFormatsThereAre) {
  EXPECT_THAT(std::string(Render(LeakReport(), "html", {}).status().message()), HasSubstr("not available yet"));
  EXPECT_THAT(std::string(Render(LeakReport(), "xml", {}).status().message()), HasSubstr("text, json and folded"));
}

TEST(RenderSummary, LaunchersAreNeverTheMainProcess) {
  ProcessSummary npm = Summarize(LeakReport(), "nodeleak.npm.1.rec");
  npm.process.is_launcher = true;
  ProcessSummary server = Summarize(LeakReport(), "nodeleak.node.2.rec");
  server.outstanding_bytes = 1999;
  ProcessSummary broken;
  broken.process.pid = 77;
  broken.problem = "cannot read nodeleak.node.77.rec: not a recording";
  const std::vector<ProcessSummary> all = {broken, npm, server};
  EXPECT_EQ(PickMainProcess(all), 2);
  EXPECT_EQ(PickMainProcess({npm}), 0);
  EXPECT_EQ(PickMainProcess({}), -1);
  ExpectFits(RenderSummary(all, 2), 100);
  ExpectGolden("summary.txt", RenderSummary(all, 2));
}

TEST(TextLayout, Numbers) {
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes((1u << 20) - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatShare(1, 1000), "<1 %");
}

TEST(TextLayout, CutsInTheMiddleByColumns) {
  EXPECT_EQ(FitMiddle("/a/very/long/path/server.js", 12), "/a/…erver.js");
  EXPECT_LE(DisplayWidth(FitMiddle("漢字漢字漢字", 7)), 7);
  EXPECT_EQ(Location("/srv/app/server.js", 3, 9, "/srv/app/", 40), "server.js:3:9");
  EXPECT_EQ(Location("/srv/apple/server.js", 3, 0, "/srv/app", 40), "/srv/apple/server.js:3");
  EXPECT_EQ(Location("wasm://wasm/2aea8d86", 1, 0xb6, "", 40), "wasm://wasm/2aea8d86:0xb5");
  EXPECT_EQ(Location("wasm://wasm/2aea8d86", 0, 0, "", 40), "wasm://wasm/2aea8d86");
}

}  // namespace
}  // namespace nodeleak::report
