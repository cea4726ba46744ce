#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "recording/process.h"
#include "recording/reader.h"
#include "tests/support/recording_builder.h"

namespace nodeleak::recording {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Joined(const std::vector<std::string>& sentences) {
  std::string all;
  for (const std::string& sentence : sentences) all += sentence + "\n";
  return all;
}

Recording Parse(const std::vector<char>& bytes) {
  absl::StatusOr<Recording> recording = ParseRecording(bytes);
  EXPECT_TRUE(recording.ok()) << recording.status();
  return recording.ok() ? *std::move(recording) : Recording();
}

std::string ParseError(const std::vector<char>& bytes) { return std::string(ParseRecording(bytes).status().message()); }

std::string TemporaryPath(const std::string& name) {
  return testing::TempDir() + "nodeleak_reader_" + std::to_string(getpid()) + "_" + name;
}

// A value in the bytes of a recording, for change: written back at the end of the expression. (Header and Shard are
// aligned, a vector of char is not.)
template <typename T>
class Edit {
 public:
  Edit(std::vector<char>* bytes, uint64_t offset) : at_(bytes->data() + offset) { memcpy(&value_, at_, sizeof(T)); }
  ~Edit() { memcpy(at_, &value_, sizeof(T)); }
  Edit(const Edit&) = delete;
  Edit& operator=(const Edit&) = delete;
  T* operator->() { return &value_; }
  T& operator*() { return value_; }

 private:
  char* at_;
  T value_;
};

Edit<Header> HeaderOf(std::vector<char>* bytes) { return Edit<Header>(bytes, 0); }
Edit<Table> TableOf(std::vector<char>* bytes, TableId id) {
  return Edit<Table>(bytes, offsetof(Header, tables) + static_cast<uint32_t>(id) * sizeof(Table));
}
Edit<Shard> ShardOf(std::vector<char>* bytes, uint32_t index) {
  return Edit<Shard>(bytes, HeaderOf(bytes)->shards_offset + index * sizeof(Shard));
}
uint32_t ShardWithBlocks(std::vector<char>* bytes) {
  uint32_t index = 0;
  while (ShardOf(bytes, index)->count == 0) ++index;
  return index;
}
// Of the first extent.
template <typename T>
Edit<T> EntryOf(std::vector<char>* bytes, TableId id, uint32_t index) {
  return Edit<T>(bytes, TableOf(bytes, id)->extents[0] + index * sizeof(T));
}

RecordingBuilder Server() {
  RecordingBuilder builder;
  builder.SetCommand({"node", "server.js", "--name", "a\nb"});
  builder.SetExecutable("/usr/bin/node");
  builder.SetVersions("v22.23.3", "12.4.254.21-node.33");
  const uint32_t node = builder.AddModule("/usr/bin/node", 0x400000, "\x01\x02\x03");
  const uint32_t malloc_frame = builder.AddNativeFrame(node, 0x1999);
  const uint32_t handler = builder.AddJsFrame("handler", "/app/server.js", 37, 11);
  const uint32_t listen = builder.AddJsFrame("listen", "node:net", 1999, 3);
  builder.AddBlocks(1999, 50021, builder.AddStack({malloc_frame, handler, listen}), 7, 3, 2);
  builder.AddBlocks(37, 101, builder.AddStack({malloc_frame, listen}));
  return builder;
}

TEST(Reader, ReadsBackWhatWasRecorded) {
  const Recording recording = Parse(Server().Build());
  EXPECT_THAT(recording.damage, IsEmpty());
  EXPECT_THAT(recording.notes, IsEmpty());
  EXPECT_EQ(recording.process.pid, 4242u);
  EXPECT_THAT(recording.process.command, ElementsAre("node", "server.js", "--name", "a\nb"));
  EXPECT_EQ(recording.process.node_version, "v22.23.3");
  EXPECT_EQ(recording.process.ending, Ending::kKilled);
  EXPECT_EQ(recording.totals.live_blocks, 1999u + 37u);
  EXPECT_EQ(recording.totals.live_bytes, 1999u * 50021u + 37u * 101u);
  EXPECT_EQ(recording.totals.counted_bytes, recording.totals.live_bytes);
  EXPECT_EQ(recording.totals.allocated_blocks, 1999u + 37u);
  ASSERT_EQ(recording.modules.size(), 1u);
  EXPECT_EQ(recording.modules[0].build_id, "\x01\x02\x03");
  EXPECT_EQ(BlockSize(recording.blocks[0]), 50021u);
  EXPECT_EQ(BlockBirthGc(recording.blocks[0]), 2u);
}

TEST(Reader, WalksStacksInnermostFirst) {
  const Recording recording = Parse(Server().Build());
  std::vector<std::string> names;
  for (uint32_t index : recording.FramesOfStack(1)) {
    const Frame& frame = recording.frames[index];
    if (frame.type == static_cast<uint8_t>(FrameType::kNative)) {
      names.emplace_back("native");
    } else {
      names.emplace_back(recording.js_functions[frame.module_or_function].name);
    }
  }
  EXPECT_THAT(names, ElementsAre("native", "handler", "listen"));
  EXPECT_THAT(recording.FramesOfStack(0), IsEmpty());
  EXPECT_THAT(recording.FramesOfStack(1999), IsEmpty());
}

TEST(Reader, BlocksAreSortedByAddressWhateverTheirNumber) {
  for (const uint32_t count : {2u, 4095u, 4096u, 20021u}) {
    RecordingBuilder builder;
    uint64_t address = 0x5500'0000'0010;
    for (uint32_t i = 0; i < count; ++i) {
      address = (address * 6364136223846793005ull + 1442695040888963407ull) & 0x7fff'ffff'fff8;
      builder.AddBlock(17, 0, i, 0, address);
    }
    const Recording recording = Parse(builder.Build());
    EXPECT_THAT(recording.damage, IsEmpty());
    ASSERT_EQ(recording.blocks.size(), count);
    for (size_t i = 1; i < count; ++i) ASSERT_LT(recording.blocks[i - 1].address, recording.blocks[i].address) << i;
  }
}

TEST(Reader, SaysHowTheProcessEnded) {
  RecordingBuilder exited;
  exited.SetExited(3, 1'999'000'000);
  const Recording recording = Parse(exited.Build());
  EXPECT_EQ(recording.process.ending, Ending::kExited);
  EXPECT_EQ(recording.process.exit_code, 3);
  EXPECT_EQ(recording.process.duration_ns, 1'999'000'000u);

  RecordingBuilder terminated;
  terminated.header().freeze_reason = static_cast<uint32_t>(FreezeReason::kSignal);
  terminated.header().end_signal = 15;
  EXPECT_EQ(Parse(terminated.Build()).process.ending, Ending::kSignaled);

  RecordingBuilder killed_itself;  // process.kill: the functions of node::AtExit have run, no exit call has
  killed_itself.header().freeze_reason = static_cast<uint32_t>(FreezeReason::kAtExit);
  killed_itself.header().exit_code = -1;
  EXPECT_EQ(Parse(killed_itself.Build()).process.ending, Ending::kKilled);

  RecordingBuilder aborted;
  aborted.header().freeze_reason = static_cast<uint32_t>(FreezeReason::kAbort);
  const Recording abort_recording = Parse(aborted.Build());
  EXPECT_EQ(abort_recording.process.ending, Ending::kSignaled);
  EXPECT_EQ(abort_recording.process.end_signal, 6);

  RecordingBuilder replaced;
  replaced.header().freeze_reason = static_cast<uint32_t>(FreezeReason::kExec);
  EXPECT_EQ(Parse(replaced.Build()).process.ending, Ending::kReplaced);
}

TEST(Reader, AProcessWithThisPidAndStartTimeIsRunning) {
  const absl::optional<uint64_t> ticks = ProcessStartTicks(static_cast<uint32_t>(getpid()));
  ASSERT_TRUE(ticks.has_value());
  RecordingBuilder builder;
  builder.header().pid = static_cast<uint32_t>(getpid());
  builder.header().process_start_ticks = *ticks;
  EXPECT_EQ(Parse(builder.Build()).process.ending, Ending::kRunning);
  builder.header().process_start_ticks = *ticks + 1;  // an earlier process with our pid
  EXPECT_EQ(Parse(builder.Build()).process.ending, Ending::kKilled);
}

TEST(Reader, RefusesWhatIsNotARecording) {
  EXPECT_EQ(ParseError({}), "it is empty");
  const std::string script = "#!/bin/sh\necho";
  EXPECT_EQ(ParseError({script.begin(), script.end()}),
            "it is not a nodeleak recording (starts with \"#!/bin/sh\\nec\")");
  std::vector<char> bytes = Server().Build();
  bytes.resize(37);
  EXPECT_EQ(ParseError(bytes), "it is 37 bytes long: too short");
  EXPECT_THAT(ParseError(std::vector<char>(20000)), HasSubstr("starts with zeroes"));
}

TEST(Reader, RefusesTheFutureByName) {
  std::vector<char> bytes = Server().Build();
  HeaderOf(&bytes)->version = 9;
  EXPECT_EQ(ParseError(bytes), "it was written by a newer nodeleak (format 9, this one reads 1): update nodeleak");
}

TEST(Reader, ErrorsNameTheFile) {
  EXPECT_THAT(std::string(ReadRecording("/nowhere/x.rec").status().message()),
              HasSubstr("cannot read recording /nowhere/x.rec: cannot open it: No such file"));
  EXPECT_THAT(std::string(ReadRecording("/tmp").status().message()), HasSubstr("it is a directory"));
  EXPECT_THAT(std::string(ReadRecording("/dev/zero").status().message()), HasSubstr("it is not a regular file"));
}

TEST(Reader, DoesNotWaitForTheWriterOfAFifo) {
  const std::string path = TemporaryPath("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(ReadRecording(path).ok());
  unlink(path.c_str());
}

TEST(Reader, ATruncatedFileIsReadAsFarAsItGoes) {
  const std::vector<char> whole = Server().Build();
  for (size_t size = sizeof(Header); size < whole.size(); size += 1999) {
    const Recording recording = Parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    EXPECT_THAT(Joined(recording.damage), HasSubstr("the file is cut short")) << size;
    EXPECT_FALSE(recording.stacks.empty());
  }
}

TEST(Reader, ACutTableKeepsItsBeginning) {
  std::vector<char> bytes = Server().Build();
  TableOf(&bytes, TableId::kStacks)->extents[0] = bytes.size() - 2 * sizeof(Stack) - 11;
  const Recording recording = Parse(bytes);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("table of stacks: 1 of 3 entries are missing"));
  EXPECT_EQ(recording.stacks.size(), 2u);
}

TEST(Reader, BlocksOfStacksThatDoNotExistAreUnknown) {
  RecordingBuilder builder;
  builder.AddBlocks(128, 1999, 77);
  builder.AddBlocks(2, 37, 0);
  const Recording recording = Parse(builder.Build());
  EXPECT_THAT(recording.damage,
              ElementsAre("128 blocks point to stacks that do not exist: counted under 'unknown stack'"));
  for (const Block& block : recording.blocks) EXPECT_EQ(block.stack, 0u);
}

TEST(Reader, ABlockThatIsTwiceInATornShardCountsOnce) {
  RecordingBuilder builder;
  const uint64_t address = builder.AddBlock(1999, 0);
  std::vector<char> bytes = builder.Build();
  const uint32_t index = ShardWithBlocks(&bytes);
  const Shard shard = *ShardOf(&bytes, index);
  uint32_t slot = 0;
  while (Edit<Block>(&bytes, shard.offset + slot * sizeof(Block))->address != address) ++slot;
  const Block double_block = *Edit<Block>(&bytes, shard.offset + slot * sizeof(Block));
  *Edit<Block>(&bytes, shard.offset + (slot + 1) % shard.capacity * sizeof(Block)) = double_block;
  ++ShardOf(&bytes, index)->sequence;  // killed in the middle of a removal
  const Recording recording = Parse(bytes);
  EXPECT_EQ(recording.totals.live_blocks, 1u);
  EXPECT_EQ(recording.totals.live_bytes, 1999u);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("the process ended in the middle of a change"));
  EXPECT_THAT(Joined(recording.damage), HasSubstr("1 blocks were in the table twice"));
}

TEST(Reader, SaysWhenAShardHoldsFewerBlocksThanItCounts) {
  std::vector<char> bytes = Server().Build();
  ShardOf(&bytes, ShardWithBlocks(&bytes))->count += 5;
  EXPECT_THAT(Joined(Parse(bytes).damage), HasSubstr("there are not as many as the shard says"));
}

TEST(Reader, BlocksAtAbsurdAddressesAreLeftOut) {
  RecordingBuilder builder;
  builder.AddBlock(1999, 0, 0, 0, ~0ull - 15);
  builder.AddBlock(37, 0);
  const Recording recording = Parse(builder.Build());
  EXPECT_EQ(recording.totals.live_bytes, 37u);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("1 blocks lie at addresses that no process has"));
}

TEST(Reader, HostileShardsAreLeftOut) {
  for (const uint32_t capacity : {3u, 0x80000000u, 0xffffffffu}) {
    for (const uint64_t offset : {0ull, 64ull, ~0ull, 1ull << 63, ~0ull / 24}) {
      std::vector<char> bytes = Server().Build();
      ShardOf(&bytes, 7)->capacity = capacity;
      ShardOf(&bytes, 7)->offset = offset;
      EXPECT_THAT(Joined(Parse(bytes).damage), HasSubstr("shard 7")) << capacity << " " << offset;
    }
  }
}

TEST(Reader, ShardsThatAllClaimTheWholeFileDoNotMultiplyIt) {
  std::vector<char> bytes(64 << 20);
  RecordingBuilder builder;
  const std::vector<char> small = builder.Build();
  memcpy(bytes.data(), small.data(), small.size());
  for (size_t i = small.size(); i + 8 <= bytes.size(); i += 8) *Edit<uint64_t>(&bytes, i) = 0x7f00'0000'0000 + i;
  for (uint32_t i = 0; i < kShardCount; ++i) {
    ShardOf(&bytes, i)->offset = small.size();
    ShardOf(&bytes, i)->capacity = 1u << 21;
  }
  const Recording recording = Parse(bytes);
  EXPECT_LT(recording.blocks.size(), bytes.size() / 8);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("slots are not in the file"));
}

TEST(Reader, AHugeSparseFileIsNotBelieved) {
  const std::string path = TemporaryPath("sparse");
  ASSERT_TRUE(Server().WriteTo(path));
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, 1ll << 42), 0);
  const uint64_t at = offsetof(Header, tables) + static_cast<uint32_t>(TableId::kFrames) * sizeof(Table);
  Table table = {sizeof(Frame), 1u << 31, 1ull << 37, {}};
  table.extents[0] = 1 << 20;
  ASSERT_EQ(pwrite(fd, &table, sizeof(table), static_cast<off_t>(at)), static_cast<ssize_t>(sizeof(table)));
  close(fd);
  absl::StatusOr<Recording> recording = ReadRecording(path);
  unlink(path.c_str());
  ASSERT_TRUE(recording.ok()) << recording.status();
  EXPECT_LT(recording->frames.size(), 50'000'000u);
  EXPECT_THAT(Joined(recording->damage), HasSubstr("the tables claim more than the file holds"));
}

TEST(Reader, CyclesInStacksAreCut) {
  std::vector<char> bytes = Server().Build();
  EntryOf<StackNode>(&bytes, TableId::kStackNodes, 1)->parent = 3;
  EntryOf<StackNode>(&bytes, TableId::kStackNodes, 2)->parent = 2;
  EntryOf<StackNode>(&bytes, TableId::kStackNodes, 3)->frame = 1999;
  const Recording recording = Parse(bytes);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("2 stack nodes have no outer frame that can be right"));
  EXPECT_THAT(Joined(recording.damage), HasSubstr("1 stack nodes name frames that do not exist"));
  for (uint32_t stack = 0; stack < recording.stacks.size(); ++stack) {
    for (uint32_t frame : recording.FramesOfStack(stack)) ASSERT_LT(frame, recording.frames.size());
  }
}

TEST(Reader, EndlessStacksAreCut) {
  RecordingBuilder builder;
  const uint32_t module = builder.AddModule("/app/x.node");
  const uint32_t frame = builder.AddNativeFrame(module, 37);
  const uint32_t stack = builder.AddStack(std::vector<uint32_t>(100'000, frame));
  EXPECT_EQ(Parse(builder.Build()).FramesOfStack(stack).size(), kMaxStackDepth);
}

TEST(Reader, FramesOfUnknownTypeAreMarkers) {
  std::vector<char> bytes = Server().Build();
  EntryOf<Frame>(&bytes, TableId::kFrames, 0)->type = 77;
  EntryOf<Frame>(&bytes, TableId::kFrames, 1)->module_or_function = 1999;
  const Recording recording = Parse(bytes);
  EXPECT_EQ(recording.frames[0].type, static_cast<uint8_t>(FrameType::kMarker));
  EXPECT_EQ(recording.frames[1].module_or_function, kNoIndex);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("2 frames name modules or functions that do not exist"));
}

TEST(Reader, TextsCannotDriveATerminal) {
  RecordingBuilder builder;
  builder.AddModule("/tmp/\x1b[31mred\xff.node");
  builder.AddModule("/tmp/gr\xc3\xbc\xc3\x9f\x65.node");
  builder.AddModule("/tmp/\xe2\x80\xaetxt.node");  // right-to-left override
  const Recording recording = Parse(builder.Build());
  EXPECT_EQ(recording.modules[0].path, "/tmp/\xef\xbf\xbd[31mred\xef\xbf\xbd.node");
  EXPECT_EQ(recording.modules[1].path, "/tmp/gr\xc3\xbc\xc3\x9f\x65.node");
  EXPECT_EQ(recording.modules[2].path, "/tmp/\xef\xbf\xbdtxt.node");
}

TEST(Reader, TextsOutsideTheTableAreEmpty) {
  std::vector<char> bytes = Server().Build();
  HeaderOf(&bytes)->executable = {0xfffffff0, 0xfffffff0};
  HeaderOf(&bytes)->node_version = {3, 0x7fffffff};
  const Recording recording = Parse(bytes);
  EXPECT_EQ(recording.process.executable, "");
  EXPECT_THAT(Joined(recording.damage), HasSubstr("2 texts are not in the string table"));
}

TEST(Reader, OverlappingAndBackwardRangesAreLeftOut) {
  RecordingBuilder builder;
  builder.AddRange({0x1000, 0x3000, 0, 1, 0, 0, 3, 0});
  builder.AddRange({0x2000, 0x4000, 0, 1, 0, 0, 3, 0});
  builder.AddRange({0x9000, 0x8000, 0, 1, 0, 0, 3, 0});
  builder.AddRange({0xa000, 0xb000, 99, 1, 0, 0, 3, 0});
  const Recording recording = Parse(builder.Build());
  ASSERT_EQ(recording.ranges.size(), 2u);
  EXPECT_EQ(recording.ranges[1].start, 0xa000u);
  EXPECT_EQ(recording.ranges[1].stack, 0u);
  EXPECT_EQ(recording.ranges[1].flags, static_cast<uint32_t>(kRangeStackUnknown));
  EXPECT_THAT(Joined(recording.damage), HasSubstr("2 mappings overlap others"));
}

TEST(Reader, CheckpointsNameEntriesThatAreThere) {
  RecordingBuilder builder;
  const uint32_t stack = builder.AddStack({builder.AddMarkerFrame(MarkerId::kNotWalked)});
  builder.AddCheckpoint(1000, 1, {{stack, 3, 1999, 50021, 7}, {0, 1, 37, 37, 1}}, 1 << 20);
  builder.AddCheckpoint(2000, 2, {{stack, 4, 2999, 60021, 8}});
  std::vector<char> bytes = builder.Build();
  const Recording whole = Parse(bytes);
  ASSERT_EQ(whole.checkpoints.size(), 2u);
  EXPECT_EQ(whole.checkpoint_entries[whole.checkpoints[1].first_entry].live_bytes, 2999u);
  EntryOf<Checkpoint>(&bytes, TableId::kCheckpoints, 0)->first_entry = ~0ull;
  EntryOf<Checkpoint>(&bytes, TableId::kCheckpoints, 1)->entry_count = 1999;
  EXPECT_THAT(Parse(bytes).checkpoints, IsEmpty());
}

TEST(Reader, AnOlderRecordingsCheckpointsBecomeChanges) {
  RecordingBuilder builder;
  const uint32_t stack = builder.AddStack({builder.AddMarkerFrame(MarkerId::kNotWalked)});
  builder.AddCheckpoint(1000, 1, {{0, 1, 37, 37, 1}, {stack, 3, 1999, 50021, 7}});
  builder.AddCheckpoint(2000, 2, {{0, 1, 37, 37, 1}});
  builder.AddCheckpoint(3000, 2, {{0, 1, 37, 37, 1}});
  const Recording recording = Parse(builder.Build());
  ASSERT_EQ(recording.checkpoints.size(), 3u);
  ASSERT_EQ(recording.checkpoints[1].entry_count, 2u) << "one stack is not named any more";
  const CheckpointEntry& gone = recording.checkpoint_entries[recording.checkpoints[1].first_entry + 1];
  EXPECT_EQ(gone.stack, stack);
  EXPECT_EQ(gone.live_bytes, 0u);
  EXPECT_EQ(gone.allocated_blocks, 7u);
  EXPECT_EQ(recording.checkpoints[2].entry_count, 1u);
}

TEST(Reader, CheckpointsDoNotShareEntries) {
  RecordingBuilder builder;
  builder.AddCheckpoint(1000, 1, {{0, 1, 37, 37, 1}});
  builder.AddCheckpoint(2000, 2, {{0, 2, 47, 47, 2}});
  std::vector<char> bytes = builder.Build();
  EntryOf<Checkpoint>(&bytes, TableId::kCheckpoints, 1)->first_entry = 0;
  EXPECT_EQ(Parse(bytes).checkpoints.size(), 1u);
}

TEST(Reader, ThreadsIsolatesAndSpacesAreLinked) {
  RecordingBuilder builder;
  const uint32_t worker = builder.AddThread("a-long-thread-name", ThreadRole::kWorker, 1, 1999);
  Isolate isolate = {};
  isolate.thread = worker;
  isolate.heap_used = 50021;
  builder.AddHeapSpace(builder.AddIsolate(isolate), "old_space", 4096, 1999);
  builder.AddHeapSpace(77, "nowhere", 1, 1);
  const Recording recording = Parse(builder.Build());
  EXPECT_EQ(recording.threads[worker].name, "a-long-thread-n");
  EXPECT_EQ(recording.threads[worker].creation_stack, kNoIndex);
  EXPECT_EQ(recording.isolates[0].thread, worker);
  EXPECT_EQ(recording.spaces[0].name, "old_space");
  EXPECT_EQ(recording.spaces[1].isolate, kNoIndex);
}

TEST(Reader, OlderBuffersAreSortedAndThoseThatMakeNoSenseLeftOut) {
  RecordingBuilder builder;
  builder.AddIsolate({});
  builder.AddOlderBuffer({0x7000, 50021, 0, 0});
  builder.AddOlderBuffer({0x5000, 1999, 77, kOlderFreed});
  builder.AddOlderBuffer({0x7000, 1, 0, 0});
  builder.AddOlderBuffer({~0ull, 1999, 0, 0});
  builder.AddBufferList({.state = 77, .buffers = 3});
  builder.AddBufferList({.state = static_cast<uint32_t>(BufferListState::kWhole)});
  const Recording recording = Parse(builder.Build());
  ASSERT_EQ(recording.older_buffers.size(), 2u);
  EXPECT_EQ(recording.older_buffers[0].isolate, kNoIndex);
  EXPECT_EQ(recording.older_buffers[0].flags, kOlderFreed);
  EXPECT_EQ(recording.older_buffers[1].bytes, 50021u);
  ASSERT_EQ(recording.buffer_lists.size(), 1u);  // there is one isolate
  EXPECT_EQ(recording.buffer_lists[0].state, static_cast<uint32_t>(BufferListState::kNotRead));
  EXPECT_EQ(recording.damage.size(), 3u);
}

TEST(Reader, ATableOfAnotherEntrySizeIsLeftOut) {
  std::vector<char> bytes = Server().Build();
  TableOf(&bytes, TableId::kFrames)->entry_bytes = 24;
  const Recording recording = Parse(bytes);
  EXPECT_THAT(Joined(recording.damage), HasSubstr("table of frames: left out"));
  EXPECT_EQ(recording.totals.live_blocks, 1999u + 37u);
}

TEST(Reader, AFileThatShrinksWhileItIsOpenIsDamage) {
  const std::string path = TemporaryPath("shrinks");
  ASSERT_TRUE(Server().WriteTo(path));
  ASSERT_EQ(truncate(path.c_str(), sizeof(Header) + 1999), 0);
  absl::StatusOr<Recording> recording = ReadRecording(path);
  unlink(path.c_str());
  ASSERT_TRUE(recording.ok());
  EXPECT_THAT(Joined(recording->damage), HasSubstr("the blocks are not in the file"));
}

}  // namespace
}  // namespace nodeleak::recording
