// From a recording built by hand to a report: kinds, sites, groups, numbers, verdicts, threads.
#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/build_report.h"

namespace nodeleak::report {
namespace {

using recording::kTickNanoseconds;
using recording::Recording;

constexpr uint64_t kRunNs = 20'000'000'000;
constexpr uint32_t kRunTicks = kRunNs / kTickNanoseconds;

// Names of native code in the recordings below, by address.
absl::StatusOr<std::vector<symbolizer::SymbolFrame>> NameOf(uint64_t address) {
  const auto frame = [](const char* name, bool inlined = false) {
    symbolizer::SymbolFrame symbol;
    symbol.function = name;
    symbol.inlined = inlined;
    return symbol;
  };
  switch (address) {
    case 1:
      return std::vector{frame("operator new(unsigned long)")};
    case 2:
      return std::vector{frame("node::NodeArrayBufferAllocator::Allocate(unsigned long)")};
    case 3:
      return std::vector{frame("v8::internal::ConstructBuffer(int)", true), frame("v8::internal::Builtin_Array(int)")};
    case 4:
      return std::vector{frame("Builtins_InterpreterEntryTrampoline")};
    case 5:
      return std::vector{frame("node::TCPWrap::New(int)")};
    default:
      return absl::NotFoundError("no symbol");
  }
}

NativeNames FakeNames() {
  NativeNames names;
  names.symbolize = [](const symbolizer::ModuleRef&, absl::Span<const uint64_t> addresses) {
    std::vector<absl::StatusOr<std::vector<symbolizer::SymbolFrame>>> answers;
    for (uint64_t address : addresses) answers.push_back(NameOf(address));
    return answers;
  };
  names.describe = [](const symbolizer::ModuleRef&) {
    return symbolizer::ModuleInfo{symbolizer::ModuleState::kVerified};
  };
  return names;
}

struct RecordingBuilder {
  Recording recording;
  uint64_t next_address = 0x10000;

  RecordingBuilder() {
    recording.process.pid = 4242;
    recording.process.flags = recording::kIsNode;
    recording.process.working_directory = "/srv/app";
    recording.process.duration_ns = kRunNs;
    recording.process.ending = recording::Ending::kExited;
    recording.process.exit_code = 3;
    recording.process.gc_at_end = recording::GcAtEnd::kDone;
    recording.totals.major_gcs = 12;  // two of them forced at the end
    recording.isolates.push_back({.thread = 0, .mark_compacts = 12, .previous_mark_compact_ns = kRunNs});
    recording.stack_nodes.push_back({0, recording::kNoIndex});
    recording.stacks.push_back({});
    recording.modules.push_back({"/opt/bin/node"});
    recording.modules[0].is_executable = true;
    recording.threads.emplace_back();
    recording.threads[0].role = recording::ThreadRole::kMain;
  }
  uint32_t AddFrame(recording::FrameType type, uint32_t owner, uint64_t value) {
    recording.frames.push_back({static_cast<uint8_t>(type), 0, 0, 0, owner, value});
    return static_cast<uint32_t>(recording.frames.size() - 1);
  }
  uint32_t Native(uint64_t address) { return AddFrame(recording::FrameType::kNative, 0, address); }
  uint32_t Js(const char* name, const char* file, uint64_t line) {
    recording.js_functions.push_back({name, file});
    return AddFrame(recording::FrameType::kJs, static_cast<uint32_t>(recording.js_functions.size() - 1),
                    line << 32 | 7);
  }
  uint32_t Stack(std::vector<uint32_t> innermost_first) {
    uint32_t node = 0;
    std::reverse(innermost_first.begin(), innermost_first.end());
    for (uint32_t frame : innermost_first) {
      recording.stack_nodes.push_back({node, frame});
      node = static_cast<uint32_t>(recording.stack_nodes.size() - 1);
    }
    recording::Stack stack = {};
    stack.node = node;
    stack.depth = static_cast<uint32_t>(innermost_first.size());
    stack.first_tick = UINT32_MAX;
    recording.stacks.push_back(stack);
    return static_cast<uint32_t>(recording.stacks.size() - 1);
  }
  void Allocate(uint32_t stack_index, uint64_t bytes, uint32_t tick, bool freed = false) {
    recording::Stack& stack = recording.stacks[stack_index];
    stack.allocated_bytes += bytes;
    stack.allocated_blocks += 1;
    stack.first_tick = std::min(stack.first_tick, tick);
    stack.last_tick = std::max(stack.last_tick, tick);
    if (freed) return;
    const uint32_t gc = tick * 10 / kRunTicks;
    recording.blocks.push_back({next_address, recording::PackSizeAndGc(bytes, gc), stack_index, tick});
    next_address += 0x10000;
    recording.totals.live_bytes += bytes;
  }
  Report Build(ReportOptions options = {}) {
    auto report = BuildReportWithNames(recording, options, FakeNames());
    EXPECT_TRUE(report.ok()) << report.status();
    return *std::move(report);
  }
};

// A leak in onRequest, a table of node's own, a ring in keepRecent.
RecordingBuilder Server() {
  RecordingBuilder server;
  const uint32_t leak =
      server.Stack({server.Native(2), server.Native(3), server.Native(4), server.Js("alloc", "node:buffer", 300),
                    server.Js("onRequest", "/srv/app/server.js", 12)});
  const uint32_t table = server.Stack({server.Native(1), server.Native(5), server.Native(99)});
  const uint32_t ring =
      server.Stack({server.Native(2), server.Native(3), server.Js("keepRecent", "/srv/app/server.js", 30)});
  for (uint32_t i = 0; i < 400; ++i) server.Allocate(leak, 1999, 100 + i * (kRunTicks - 101) / 400);
  for (uint32_t i = 0; i < 30; ++i) server.Allocate(table, 501, 20 + i);
  for (uint32_t i = 0; i < 400; ++i) server.Allocate(ring, 20011, 100 + i * (kRunTicks - 101) / 400, i < 390);
  return server;
}

const Group& GroupOf(const Report& report, const std::string& function) {
  static const Group kMissing;
  for (const Group& group : report.groups) {
    if (group.site.has_value() && group.site->function == function) return group;
  }
  ADD_FAILURE() << "no group with the site " << function;
  return kMissing;
}

TEST(BuildReport, NumbersKindsAndSitesOfAServer) {
  const Report report = Server().Build();
  ASSERT_EQ(report.groups.size(), 3u);
  const Group& leak = GroupOf(report, "onRequest");
  EXPECT_EQ(leak.kind, Kind::kArrayBuffer);
  EXPECT_EQ(leak.live_bytes, 400u * 1999);
  EXPECT_EQ(leak.live_blocks, 400u);
  EXPECT_EQ(*leak.site, (Site{"onRequest", "/srv/app/server.js", 12, 7, ""}));
  EXPECT_EQ(leak.origin->function, "v8::internal::ConstructBuffer");
  EXPECT_THAT(leak.threads, testing::ElementsAre("main"));
  ASSERT_EQ(leak.stacks.size(), 1u);
  EXPECT_EQ(leak.stacks[0].frames.size(), 5u) << "one inlined more, one stub of V8 less";
  EXPECT_TRUE(leak.stacks[0].frames[1].inlined);
  EXPECT_EQ(GroupOf(report, "keepRecent").allocations, 400u);
  EXPECT_EQ(report.totals.allocated_bytes, 400u * 1999 + 30 * 501 + 400 * 20011);
  EXPECT_EQ(report.process.exit_code, 3);
}

TEST(BuildReport, VerdictsOfALeakARingAndATable) {
  const Report report = Server().Build();
  EXPECT_EQ(GroupOf(report, "onRequest").verdict, Verdict::kGrowing);
  EXPECT_NEAR(static_cast<double>(GroupOf(report, "onRequest").rate.bytes_per_second), 400 * 1999 / 20.0, 2000);
  EXPECT_EQ(GroupOf(report, "keepRecent").verdict, Verdict::kBounded);
  EXPECT_EQ(report.groups.back().verdict, Verdict::kStartup);
  EXPECT_EQ(report.groups.back().origin->function, "node::TCPWrap::New");
}

TEST(BuildReport, IdsDoNotDependOnTheOrderOfTheRecordingNorOnTheCheckout) {
  RecordingBuilder other;
  other.recording.process.working_directory = "/home/me/app";
  other.Stack({other.Native(7)});  // shifts every index
  const uint32_t leak =
      other.Stack({other.Native(2), other.Native(3), other.Js("onRequest", "/home/me/app/server.js", 12)});
  other.Allocate(leak, 50021, 100);
  EXPECT_EQ(GroupOf(other.Build(), "onRequest").id, GroupOf(Server().Build(), "onRequest").id);
}

TEST(BuildReport, GroupsByWhatIsAsked) {
  EXPECT_EQ(Server().Build({.group_by = GroupBy::kKind}).groups.size(), 2u);
  EXPECT_EQ(Server().Build({.group_by = GroupBy::kThread}).groups.size(), 1u);
  EXPECT_EQ(Server().Build({.group_by = GroupBy::kFunction}).groups.size(), 3u);
  EXPECT_EQ(Server().Build({.group_by = GroupBy::kStack}).groups.size(), 3u);
  EXPECT_FALSE(ParseGroupBy("colour").ok());
}

TEST(BuildReport, TopAndMinBytesLeaveOutAndCount) {
  const Report report = Server().Build({.top = 1});
  EXPECT_EQ(report.groups.size(), 1u);
  EXPECT_EQ(report.left_out_groups, 2u);
  EXPECT_EQ(report.left_out_bytes, 10u * 20011 + 30 * 501);
  EXPECT_EQ(Server().Build({.min_bytes = 100'000}).groups.size(), 2u);
}

TEST(BuildReport, MappingsAreCountedReservationsAreNot) {
  RecordingBuilder builder;
  const uint32_t stack = builder.Stack({builder.Native(99)});
  builder.recording.stacks[stack].flags = recording::kStackMapping;
  builder.recording.ranges.push_back({0x100000, 0x103000, stack, 10, 0, 0, 3, 0});
  builder.recording.ranges.push_back({0x200000, 0x40200000, stack, 10, 0, 0, 0, 0});
  builder.recording.ranges.push_back({0x50000000, 0x50001000, 0, 10, 0, recording::kRangeBrk, 3, 0});
  const Report report = builder.Build();
  ASSERT_EQ(report.groups.size(), 1u);
  EXPECT_EQ(report.groups[0].kind, Kind::kMapping);
  EXPECT_EQ(report.groups[0].live_bytes, 0x3000u);
  EXPECT_EQ(report.totals.live_bytes, 0x3000u);
}

// malloc(0) gives a block, which somebody has to free.
TEST(BuildReport, BlocksOfNoBytesAreCounted) {
  RecordingBuilder server;
  const uint32_t empty = server.Stack({server.Native(1), server.Js("keepNothing", "/srv/app/server.js", 12)});
  for (uint32_t i = 0; i < 25; ++i) server.Allocate(empty, 0, 100 + i);
  const Report report = server.Build();
  EXPECT_EQ(report.totals.live_blocks, 25u);
  EXPECT_EQ(GroupOf(report, "keepNothing").live_blocks, 25u);
  EXPECT_EQ(GroupOf(report, "keepNothing").stacks.size(), 1u);
}

// The file is named once, and the kernel's own code, which no file has, not at all.
TEST(BuildReport, FilesWithoutNamesAreSaid) {
  RecordingBuilder builder;
  for (const char* path : {"/srv/app/addon.node", "[vdso]"}) builder.recording.modules.push_back({path});
  const uint32_t addon = builder.AddFrame(recording::FrameType::kNative, 1, 7);
  const uint32_t kernel = builder.AddFrame(recording::FrameType::kNative, 2, 8);
  builder.Allocate(builder.Stack({addon, kernel}), 501, 20);
  NativeNames names = FakeNames();
  names.describe = [](const symbolizer::ModuleRef& module) {
    symbolizer::ModuleInfo info{symbolizer::ModuleState::kRefused};
    info.why = "file is gone: " + module.path;
    return info;
  };
  const auto report = BuildReportWithNames(builder.recording, {}, names);
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string text = RenderText(*report, {});
  EXPECT_THAT(text, testing::HasSubstr("names of /srv/app/addon.node degraded: file is gone\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("names of [vdso]")));
}

TEST(BuildReport, LossesAndDamageAreSaid) {
  RecordingBuilder builder = Server();
  builder.recording.losses[0] = {7, 1999};
  builder.recording.damage = {"the table of ranges is cut short"};
  builder.recording.process.gc_at_end = recording::GcAtEnd::kNotDone;
  builder.recording.process.ending = recording::Ending::kKilled;
  const Report report = builder.Build();
  EXPECT_EQ(report.totals.lost.blocks, 7u);
  const std::string text = RenderText(report, {});
  EXPECT_THAT(text, testing::HasSubstr("7 blocks (2.0 KiB) not recorded"));
  EXPECT_THAT(text, testing::HasSubstr("the table of ranges is cut short"));
  EXPECT_THAT(text, testing::HasSubstr("garbage counts as outstanding"));
}

// Stack 0 keeps one block, and had garbage; all of the other stack waited for finalizers.
RecordingBuilder Collected(recording::ConfirmationKind kind) {
  RecordingBuilder builder;
  const uint32_t kept = builder.Stack({builder.Native(5)}), gone = builder.Stack({builder.Native(2)});
  builder.Allocate(kept, 1999, 10);
  builder.recording.stacks[gone].allocated_blocks = 9;
  builder.recording.process.gc_at_end = recording::GcAtEnd::kDone;
  builder.recording.confirmation.kind = static_cast<uint32_t>(kind);
  builder.recording.confirmation.turns = 2;
  builder.recording.freed_by_gc.resize(gone + 1);
  builder.recording.freed_by_gc[kept] = {.garbage_bytes = 50'021, .garbage_blocks = 3};
  builder.recording.freed_by_gc[gone] = {.pending_bytes = 90'017, .pending_blocks = 9};
  return builder;
}

TEST(BuildReport, WhatTheLastCollectionFreedIsToldApartFromWhatIsLeft) {
  const Report report = Collected(recording::ConfirmationKind::kAtEnd).Build();
  EXPECT_EQ(report.garbage_bytes, 50'021u);
  EXPECT_EQ(report.pending_bytes, 90'017u);
  ASSERT_EQ(report.groups.size(), 2u);
  EXPECT_EQ(report.groups[0].live_bytes, 1999u);
  EXPECT_EQ(report.groups[0].garbage_blocks, 3u);
  EXPECT_EQ(report.groups[1].verdict, Verdict::kPending);
  EXPECT_EQ(report.groups[1].pending_blocks, 9u);
  EXPECT_THAT(RenderText(report, {}), testing::HasSubstr("48.8 KiB of garbage, finalizers after it 87.9 KiB"));
}

// Ten blocks, all freed by the full GC at a natural end; so many were allocated when the only earlier full GC came.
std::string EvidenceOfTheScript(uint64_t allocated_at_gc, uint64_t allocated = 10) {
  RecordingBuilder builder;
  const uint32_t stack = builder.Stack({builder.Native(5)});
  recording::Recording& recording = builder.recording;
  recording.stacks[stack].allocated_blocks = allocated;
  recording.stacks[stack].first_tick = 0;
  recording.stacks[stack].last_tick = 1000;
  recording.process.gc_at_end = recording::GcAtEnd::kDone;
  recording.process.freeze_reason = recording::FreezeReason::kAtExit;
  recording.confirmation.kind = static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd);
  recording.confirmation.turns = 1;
  recording.freed_by_gc.resize(stack + 1);
  recording.freed_by_gc[stack] = {.garbage_bytes = 500'210, .garbage_blocks = 10};
  recording.checkpoint_entries = {{.stack = stack, .allocated_blocks = allocated_at_gc},
                                  {.stack = stack, .allocated_blocks = allocated}};
  recording.checkpoints = {{.time_ns = 1'000'000'000, .entry_count = 1},
                           {.time_ns = 3'900'000'000, .mark_compacts = 1, .entry_count = 1, .first_entry = 1}};
  const Report report = builder.Build();
  EXPECT_EQ(report.groups.at(0).verdict, Verdict::kGarbage);
  return report.groups[0].evidence.back();
}

TEST(BuildReport, WhatTheScriptHeldUntilItsEndIsNoMereGarbage) {
  EXPECT_THAT(EvidenceOfTheScript(5), testing::HasSubstr("1 full GC before freed nothing of it: the script held it"));
  EXPECT_THAT(EvidenceOfTheScript(0), testing::HasSubstr("nothing of it was freed before: the script may have held"));
  EXPECT_THAT(EvidenceOfTheScript(5, 30), testing::HasSubstr("freed 488.5 KiB in 10 blocks")) << "20 went before";
}

TEST(BuildReport, WhatARequestedCollectionFreedIsForThatRequestOnly) {
  RecordingBuilder builder = Collected(recording::ConfirmationKind::kRequested);
  EXPECT_EQ(builder.Build().groups.size(), 1u);
  ReportOptions options;
  options.requested_gc = true;
  builder.recording.gc_answers.push_back({.state = static_cast<uint32_t>(recording::GcAnswerState::kNotReached)});
  const Report report = builder.Build(options);
  EXPECT_EQ(report.garbage_bytes, 50'021u);
  EXPECT_THAT(RenderCollection(report, {}), testing::HasSubstr("has not reached a safe point for 3 s"));
}

TEST(BuildReport, ArrayBuffersFromBeforeTheAttachAreListedBySize) {
  RecordingBuilder builder;
  EXPECT_FALSE(builder.Build().older_buffers.has_value());
  builder.recording.process.flags |= recording::kIsAttached;
  EXPECT_THAT(RenderText(builder.Build(), {}), testing::HasSubstr("not known: the list of 1 isolate came to no place"));
  builder.recording.older_buffers = {
      {0x1000, 1999, 0, 0}, {0x2000, 50'021, 0, 0}, {0x3000, 1999, 0, 0}, {0x4000, 90'017, 0, recording::kOlderFreed}};
  builder.recording.buffer_lists = {{.state = static_cast<uint32_t>(recording::BufferListState::kWhole)}};
  const Report report = builder.Build();
  ASSERT_TRUE(report.older_buffers.has_value());
  EXPECT_EQ(report.older_buffers->state, CapabilityState::kFull);
  EXPECT_EQ(report.older_buffers->live_bytes, 50'021u + 2 * 1999u);
  EXPECT_EQ(report.older_buffers->freed_blocks, 1u);
  ASSERT_EQ(report.older_buffers->sizes.size(), 2u);
  EXPECT_EQ(report.older_buffers->sizes[0].bytes, 50'021u);
  EXPECT_EQ(report.totals.live_bytes, 0u);
  EXPECT_THAT(RenderText(report, {}), testing::HasSubstr("       2  of 1,999 bytes"));
  EXPECT_THAT(RenderJson(report), testing::HasSubstr(R"({"bytes": 1999, "liveBlocks": 2})"));
  builder.recording.buffer_lists[0].state = static_cast<uint32_t>(recording::BufferListState::kSweeping);
  EXPECT_THAT(RenderText(builder.Build(), {}), testing::HasSubstr("! not all: the list of 1 isolate could only"));
  builder.recording.process.sample_bytes = 4096;
  EXPECT_THAT(RenderText(builder.Build(), {}), testing::HasSubstr("not known: a sampled recording"));
}

TEST(BuildReport, UnknownStackAndUnnamedThreadsAreShownAsSuch) {
  RecordingBuilder builder;
  builder.Allocate(0, 1999, 10);
  builder.recording.stacks[0].thread = recording::kNoIndex;
  const Report report = builder.Build();
  ASSERT_EQ(report.groups.size(), 1u);
  EXPECT_FALSE(report.groups[0].site.has_value());
  EXPECT_THAT(report.groups[0].threads, testing::ElementsAre("unknown"));
  EXPECT_THAT(RenderText(report, {}), testing::HasSubstr("2.0 KiB in 1 block"));
}

}  // namespace
}  // namespace nodeleak::report
