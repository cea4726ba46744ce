// From a memory picture to lines and advice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "recording/reader.h"
#include "report/waterfall.h"
#include "tests/support/recording_builder.h"

namespace nodeleak::report {
namespace {

using recording::MemoryPart;
using recording::MemoryPicture;
using recording::PictureInfo;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

PictureInfo Picture(uint64_t rss_bytes) {
  PictureInfo info;
  info.picture.moment = static_cast<uint32_t>(recording::PictureMoment::kEnd);
  info.picture.flags = recording::kPictureRecordedAll;
  info.picture.rss_bytes = rss_bytes;
  return info;
}
void SetPart(MemoryPart part, uint64_t bytes, PictureInfo* info) {
  info->picture.parts[static_cast<uint32_t>(part)] = {bytes, bytes};
}
void AddArena(uint64_t free_bytes, uint64_t block_bytes, uint32_t flags, PictureInfo* info) {
  recording::MemoryArena arena = {};
  arena.address = info->arenas.size();
  arena.flags = flags | recording::kArenaWalked;
  arena.resident = arena.mapped = free_bytes + block_bytes;
  arena.block_bytes = block_bytes;
  arena.in_use_bytes = block_bytes;
  info->arenas.push_back(arena);
}
const MemoryLine* Line(const Memory& memory, std::string_view name) {
  for (const MemoryLine& line : memory.lines) {
    if (line.name == name) return &line;
  }
  return nullptr;
}
uint64_t Sum(const Memory& memory) {
  uint64_t sum = 0;
  for (const MemoryLine& line : memory.lines) sum += line.touched_bytes.value_or(0);
  return sum;
}

struct Program {
  recording::Recording recording;
  std::vector<Use> uses;
  std::vector<ClassifiedUse> classified;
  Program() {
    recording.stacks.resize(3);
    uses.resize(3);
    uses[0].stack = 1;
    uses[1].stack = 1;
    uses[1].source = Source::kMapping;
    uses[2].stack = 2;
    Origin sharp;
    sharp.package = "sharp@1.2.3";
    classified = {{&uses[0], Kind::kArrayBuffer, {}, {}, false},
                  {&uses[1], Kind::kWasmMemory, {}, {}, false},
                  {&uses[2], Kind::kAddon, {}, sharp, false}};
  }
};

TEST(Waterfall, BlocksAndMappingsOfAStackAreTheirOwners) {
  Program program;
  PictureInfo info = Picture(100 * kMiB);
  info.uses = {{1, 0, 3, 60 * kMiB, 40 * kMiB, 0},
               {1, recording::kUseMapping, 1, 30 * kMiB, 20 * kMiB, 8ull << 30},
               {2, 0, 9, 5 * kMiB, 5 * kMiB, 0}};
  SetPart(MemoryPart::kBlocks, 45 * kMiB, &info);
  SetPart(MemoryPart::kMappings, 20 * kMiB, &info);
  SetPart(MemoryPart::kFiles, 30 * kMiB, &info);
  SetPart(MemoryPart::kUnexplained, 5 * kMiB, &info);
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(memory.at, "end");
  EXPECT_EQ(Line(memory, "array-buffer")->bytes, 60 * kMiB);
  EXPECT_EQ(Line(memory, "array-buffer")->touched_bytes, 40 * kMiB);
  EXPECT_EQ(Line(memory, "wasm-memory")->touched_bytes, 20 * kMiB);
  EXPECT_EQ(Line(memory, "addon sharp@1.2.3")->touched_bytes, 5 * kMiB);
  EXPECT_EQ(Line(memory, "reserved")->bytes, 8ull << 30);
  EXPECT_EQ(Line(memory, "reserved")->touched_bytes, 0u);
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
  EXPECT_TRUE(memory.advice.empty());
}

TEST(Waterfall, WhatAPictureLostIsUnexplained) {
  Program program;
  PictureInfo info = Picture(50 * kMiB);
  info.picture.flags |= recording::kPictureCut;
  SetPart(MemoryPart::kBlocks, 50 * kMiB, &info);  // its uses did not fit into the recording
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, kUnexplainedLine)->bytes, 50 * kMiB);
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
  EXPECT_EQ(memory.notes.size(), 1u);
}

// As in a process that was attached to: what glibc has in use there is not known, so nothing is called free.
TEST(Waterfall, AnArenaThatCouldNotBeReadIsNotCalledFree) {
  Program program;
  PictureInfo info = Picture(430 * kMiB);
  info.picture.flags = 0;
  SetPart(MemoryPart::kMallocFree, 430 * kMiB, &info);
  AddArena(430 * kMiB, 0, recording::kArenaMain, &info);
  info.arenas[0].flags = recording::kArenaMain;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, "malloc: older blocks")->bytes, 430 * kMiB);
  EXPECT_THAT(Line(memory, "malloc: older blocks")->detail, HasSubstr("or free: that could not be read"));
  EXPECT_TRUE(memory.advice.empty());
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
}

TEST(Waterfall, WhatWasThereBeforeAnAttachIsSaidToBe) {
  Program program;
  program.recording.process.flags = recording::kIsAttached;
  program.recording.isolates.resize(1);
  program.recording.isolates[0].external = 70 * kMiB;
  PictureInfo info = Picture(110 * kMiB);
  info.picture.flags = 0;
  info.uses = {{1, 0, 3, 10 * kMiB, 10 * kMiB, 0}};
  SetPart(MemoryPart::kBlocks, 10 * kMiB, &info);
  SetPart(MemoryPart::kUnexplained, 100 * kMiB, &info);
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  ASSERT_NE(Line(memory, "older mappings"), nullptr);
  EXPECT_EQ(Line(memory, "older mappings")->bytes, 100 * kMiB);
  EXPECT_THAT(Line(memory, "older mappings")->detail, HasSubstr("by V8's own count: 60.0 MiB"));
  EXPECT_EQ(Line(memory, kUnexplainedLine)->bytes, 0u);
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
}

std::string OnlyAdvice(const PictureInfo& info) {
  Program program;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(memory.advice.size(), 1u);
  return memory.advice.size() == 1 ? memory.advice[0] : "";
}

TEST(Waterfall, OneArenaIsNoCaseForFewerArenas) {
  PictureInfo info = Picture(500 * kMiB);
  SetPart(MemoryPart::kMallocFree, 430 * kMiB, &info);
  AddArena(430 * kMiB, 0, recording::kArenaMain, &info);
  const std::string advice = OnlyAdvice(info);
  EXPECT_THAT(advice, HasSubstr("430.0 MiB of 500.0 MiB is free memory that malloc keeps"));
  EXPECT_THAT(advice, HasSubstr("MALLOC_ARENA_MAX would not help"));
}

TEST(Waterfall, ManyArenasAre) {
  PictureInfo info = Picture(500 * kMiB);
  SetPart(MemoryPart::kMallocFree, 330 * kMiB, &info);
  AddArena(30 * kMiB, 0, recording::kArenaMain, &info);
  for (int i = 0; i < 6; ++i) AddArena(50 * kMiB, 0, 0, &info);
  const std::string advice = OnlyAdvice(info);
  EXPECT_THAT(advice, HasSubstr("MALLOC_ARENA_MAX=2 in the environment would help: 300.0 MiB"));
}

TEST(Waterfall, LittleFreeMemoryIsNoAdvice) {
  Program program;
  PictureInfo info = Picture(500 * kMiB);
  SetPart(MemoryPart::kMallocFree, 60 * kMiB, &info);
  AddArena(60 * kMiB, 0, recording::kArenaMain, &info);
  EXPECT_TRUE(DescribePicture(program.recording, info, program.classified).advice.empty());
}

TEST(Waterfall, BlocksFromBeforeTheRecordingAreNotFree) {
  Program program;
  PictureInfo info = Picture(100 * kMiB);
  info.picture.flags = 0;
  SetPart(MemoryPart::kMallocFree, 100 * kMiB, &info);
  AddArena(100 * kMiB, 0, recording::kArenaMain, &info);
  info.arenas[0].in_use_bytes = 70 * kMiB;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, kFreeLine)->touched_bytes, 30 * kMiB);
  EXPECT_EQ(Line(memory, "malloc: older blocks")->touched_bytes, 70 * kMiB);
}

TEST(Waterfall, BlocksThatWereNotSampledAreNotFree) {
  Program program;
  program.recording.process.sample_bytes = 512 << 10;
  PictureInfo info = Picture(120 * kMiB);
  info.uses = {{2, 0, 9, 10 * kMiB, 10 * kMiB, 0}};
  SetPart(MemoryPart::kBlocks, 10 * kMiB, &info);
  SetPart(MemoryPart::kMallocFree, 90 * kMiB, &info);
  SetPart(MemoryPart::kUnexplained, 20 * kMiB, &info);  // large ones
  AddArena(90 * kMiB, 10 * kMiB, recording::kArenaMain, &info);
  info.arenas[0].in_use_bytes = 85 * kMiB;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, kFreeLine)->touched_bytes, 15 * kMiB);
  ASSERT_NE(Line(memory, "malloc: not recorded"), nullptr);
  EXPECT_EQ(Line(memory, "malloc: not recorded")->touched_bytes, 95 * kMiB);
  EXPECT_THAT(Line(memory, "malloc: not recorded")->detail, HasSubstr("not sampled"));
  EXPECT_TRUE(memory.advice.empty());
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
}

TEST(Waterfall, BlocksThatTheRecordingLostAreNotFree) {
  Program program;
  program.recording.losses[static_cast<size_t>(recording::LossId::kBlocksTableFull)] = {1000, 60 * kMiB};
  PictureInfo info = Picture(100 * kMiB);
  SetPart(MemoryPart::kMallocFree, 100 * kMiB, &info);
  AddArena(100 * kMiB, 0, recording::kArenaMain, &info);
  info.arenas[0].in_use_bytes = 60 * kMiB;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, kFreeLine)->touched_bytes, 40 * kMiB);
  EXPECT_THAT(Line(memory, "malloc: not recorded")->detail, HasSubstr("lost"));
}

TEST(Waterfall, WhatNobodyMappedIsLikelyTheOtherAllocators) {
  Program program;
  PictureInfo info = Picture(100 * kMiB);
  info.picture.flags |= recording::kPictureOtherAllocator;
  SetPart(MemoryPart::kMallocFree, 10 * kMiB, &info);
  SetPart(MemoryPart::kUnexplained, 90 * kMiB, &info);
  AddArena(10 * kMiB, 0, recording::kArenaMappedBlocks, &info);
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  EXPECT_EQ(Line(memory, kFreeLine)->touched_bytes, 100 * kMiB);
  EXPECT_EQ(Line(memory, kFreeLine)->parts[0].name, "likely");
  EXPECT_EQ(Line(memory, kUnexplainedLine)->bytes, 0u);
  EXPECT_EQ(Sum(memory), memory.rss_bytes);
}

TEST(Waterfall, TwoArenasAreNotCalledOne) {
  PictureInfo info = Picture(500 * kMiB);
  SetPart(MemoryPart::kMallocFree, 400 * kMiB, &info);
  AddArena(220 * kMiB, 0, recording::kArenaMain, &info);
  AddArena(180 * kMiB, 0, 0, &info);
  const std::string advice = OnlyAdvice(info);
  EXPECT_THAT(advice, HasSubstr("would not help much: 220.0 MiB of it is in one arena"));
}

TEST(Waterfall, ShortRunsAreNoCaseForTrim) {
  PictureInfo info = Picture(500 * kMiB);
  SetPart(MemoryPart::kMallocFree, 400 * kMiB, &info);
  AddArena(400 * kMiB, 0, recording::kArenaMain, &info);
  info.arenas[0].free_chunks = 800 << 10;
  info.arenas[0].free_bytes = 400 * kMiB;
  const std::string advice = OnlyAdvice(info);
  EXPECT_THAT(advice, HasSubstr("malloc_trim would give little back, its free runs have 512 B on average"));
}

TEST(Waterfall, AnotherAllocatorGetsNoAdviceAboutGlibc) {
  Program program;
  PictureInfo info = Picture(100 * kMiB);
  info.picture.flags |= recording::kPictureOtherAllocator;
  SetPart(MemoryPart::kMallocFree, 60 * kMiB, &info);
  AddArena(60 * kMiB, 0, recording::kArenaMappedBlocks, &info);
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  ASSERT_EQ(memory.advice.size(), 1u);
  EXPECT_THAT(memory.advice[0], ::testing::Not(HasSubstr("jemalloc")));
}

TEST(Waterfall, ALimitIsSaidWhenItIsClose) {
  Program program;
  PictureInfo info = Picture(100 * kMiB);
  info.picture.limit_bytes = 512 * kMiB;
  info.picture.limit_used_bytes = 500 * kMiB;
  const Memory memory = DescribePicture(program.recording, info, program.classified);
  ASSERT_EQ(memory.advice.size(), 1u);
  EXPECT_THAT(memory.advice[0], HasSubstr("500.0 MiB of 512.0 MiB"));
}

TEST(Waterfall, ThePictureOfNowIsShownWhateverTheClockOfOthers) {
  Program program;
  for (const auto& [moment, time_ns] :
       {std::pair(recording::PictureMoment::kPeak, 300), {recording::PictureMoment::kNow, 200}}) {
    PictureInfo info = Picture(50 * kMiB);
    info.picture.moment = static_cast<uint32_t>(moment);
    info.picture.time_ns = static_cast<uint64_t>(time_ns);
    program.recording.pictures.push_back(info);
  }
  Report report;
  AddPictures(program.recording, program.classified, &report);
  EXPECT_EQ(report.memory.at, "now");
  ASSERT_EQ(report.other_memory.size(), 1u);
  EXPECT_EQ(report.other_memory[0].at, "peak");
}

// --- pictures in a recording

MemoryPicture Stored(recording::PictureMoment moment, uint64_t time_ns) {
  MemoryPicture picture = {};
  picture.sequence = 2;
  picture.moment = static_cast<uint32_t>(moment);
  picture.time_ns = time_ns;
  return picture;
}

recording::Recording Read(recording::RecordingBuilder* builder) {
  const std::vector<char> bytes = builder->Build();
  absl::StatusOr<recording::Recording> recording = recording::ParseRecording(bytes);
  EXPECT_TRUE(recording.ok()) << recording.status();
  return *std::move(recording);
}

TEST(StoredPictures, TheLatestOfAMomentIsRead) {
  recording::RecordingBuilder builder;
  const uint32_t stack = builder.AddStack({builder.AddJsFrame("f", "/app/a.js", 1)});
  builder.AddPicture(Stored(recording::PictureMoment::kPeak, 100), {{stack, 0, 1, 10, 10, 0}}, {});
  builder.AddPicture(Stored(recording::PictureMoment::kPeak, 300), {{stack, 0, 1, 30, 30, 0}}, {{}});
  builder.AddPicture(Stored(recording::PictureMoment::kEnd, 400), {}, {});
  const recording::Recording recording = Read(&builder);
  ASSERT_EQ(recording.pictures.size(), 2u);
  EXPECT_EQ(recording.pictures[0].uses[0].bytes, 30u);
  EXPECT_EQ(recording.pictures[0].arenas.size(), 1u);
  EXPECT_TRUE(recording.damage.empty());
}

TEST(StoredPictures, OneThatWasBeingWrittenIsLeftOut) {
  recording::RecordingBuilder builder;
  MemoryPicture half = Stored(recording::PictureMoment::kPeak, 300);
  half.sequence = 3;
  builder.AddPicture(Stored(recording::PictureMoment::kPeak, 100), {}, {});
  builder.AddPicture(half, {}, {});
  const recording::Recording recording = Read(&builder);
  ASSERT_EQ(recording.pictures.size(), 1u);
  EXPECT_EQ(recording.pictures[0].picture.time_ns, 100u);
  EXPECT_EQ(recording.notes.size(), 1u);
}

TEST(StoredPictures, HostileOnesAreLeftOut) {
  recording::RecordingBuilder builder;
  MemoryPicture outside = Stored(recording::PictureMoment::kPeak, 1);
  MemoryPicture huge = Stored(recording::PictureMoment::kEnd, 1);
  huge.rss_bytes = ~0ull;
  MemoryPicture unknown = Stored(static_cast<recording::PictureMoment>(77), 1);
  builder.AddPicture(outside, {}, {});
  builder.AddPicture(huge, {}, {});
  builder.AddPicture(unknown, {}, {});
  builder.AddPicture(Stored(recording::PictureMoment::kRssLimit, 1), {{4711, 0, 1, 1, 1, 0}}, {});
  builder.picture(0).first_use = ~0ull;
  builder.picture(0).use_count = 2;
  const recording::Recording recording = Read(&builder);
  ASSERT_EQ(recording.pictures.size(), 1u);
  EXPECT_EQ(recording.pictures[0].uses[0].stack, 0u);
  EXPECT_EQ(recording.damage.size(), 2u);
}

}  // namespace
}  // namespace nodeleak::report
