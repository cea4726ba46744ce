// Reads while a thread of ours writes as the shim does: through a shared mapping, shards under their sequence.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "recording/byte_source.h"
#include "recording/copy.h"
#include "recording/process.h"
#include "recording/reader.h"
#include "tests/support/recording_builder.h"

namespace nodeleak::recording {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

constexpr uint32_t kBlocks = 5003;
constexpr uint32_t kStacks = 4001;

class LiveRecording : public testing::Test {
 protected:
  LiveRecording() : path_(testing::TempDir() + "nodeleak_live_" + std::to_string(getpid())) {
    RecordingBuilder builder;
    builder.header().pid = static_cast<uint32_t>(getpid());
    builder.header().process_start_ticks = ProcessStartTicks(builder.header().pid).value_or(0);
    for (uint32_t i = 1; i < kStacks; ++i) {
      Frame frame = {static_cast<uint8_t>(FrameType::kNative), 0, 0, 0, kNoIndex, i};
      builder.AddStack({builder.AddFrame(frame)});
    }
    builder.AddBlocks(kBlocks, 1999, 0);
    builder.AddIsolate({});
    builder.AddCheckpoint(1000, 0, {{0, 1, 1, 1, 1}});
    builder.AddCheckpoint(2000, 0, {{0, 2, 2, 2, 2}});
    EXPECT_TRUE(builder.WriteTo(path_));
    bytes_ = builder.Build().size();
    const int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    base_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    EXPECT_NE(base_, MAP_FAILED);
  }
  ~LiveRecording() override {
    munmap(base_, bytes_);
    unlink(path_.c_str());
  }

  Header* header() { return reinterpret_cast<Header*>(base_); }
  Shard* shards() { return reinterpret_cast<Shard*>(base_ + header()->shards_offset); }
  Block* slots(const Shard& shard) { return reinterpret_cast<Block*>(base_ + shard.offset); }
  std::atomic_ref<uint64_t> stack_count() {
    return std::atomic_ref<uint64_t>(header()->tables[static_cast<uint32_t>(TableId::kStacks)].count);
  }

  static void Begin(Shard* shard) { std::atomic_ref<uint32_t>(shard->sequence).fetch_add(1); }
  static void End(Shard* shard) { std::atomic_ref<uint32_t>(shard->sequence).fetch_add(1); }

  // Moves each block of the shard by one slot: halfway there is one less.
  void Rotate(Shard* shard) {
    Begin(shard);
    Block* slot = slots(*shard);
    const Block last = slot[shard->capacity - 1];
    for (uint32_t i = shard->capacity - 1; i > 0; --i) slot[i] = slot[i - 1];
    slot[0] = last;
    End(shard);
  }

  const std::string path_;
  uint64_t bytes_ = 0;
  char* base_ = nullptr;
};

TEST_F(LiveRecording, NoBlockIsLostOrDoubledWhileShardsChange) {
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint32_t i = 0; !stop; ++i) {
      Rotate(&shards()[i % kShardCount]);
      if (i % 16 == 0) sched_yield();
    }
  });
  uint32_t undisturbed = 0;
  for (uint32_t round = 0; round < 60; ++round) {
    absl::StatusOr<Recording> recording = ReadRecording(path_);
    EXPECT_TRUE(recording.ok());
    if (!recording.ok()) break;
    EXPECT_EQ(recording->process.ending, Ending::kRunning);
    EXPECT_THAT(recording->damage, IsEmpty());
    if (!recording->notes.empty()) continue;
    ++undisturbed;
    EXPECT_EQ(recording->totals.live_blocks, kBlocks);
  }
  stop = true;
  writer.join();
  EXPECT_GT(undisturbed, 30u);
}

TEST_F(LiveRecording, ABlockNeverComesBeforeItsStack) {
  stack_count().store(1);
  constexpr uint32_t kRounds = 60;
  std::atomic<uint32_t> rounds_begun = 0;
  std::thread writer([&] {
    for (uint32_t stack = 1; stack < kStacks; ++stack) {
      while (stack > rounds_begun * kStacks / kRounds) sched_yield();  // lasts as long as the reader reads
      stack_count().store(stack + 1, std::memory_order_release);
      Shard* shard = &shards()[stack % kShardCount];
      Begin(shard);
      for (uint32_t i = 0; i < shard->capacity; ++i) {
        if (slots(*shard)[i].address != 0) slots(*shard)[i].stack = stack;
      }
      End(shard);
    }
  });
  for (uint32_t round = 0; round < kRounds; ++round) {
    ++rounds_begun;
    absl::StatusOr<Recording> recording = ReadRecording(path_);
    EXPECT_TRUE(recording.ok());
    EXPECT_THAT(recording.ok() ? recording->damage : std::vector<std::string>(), IsEmpty());
  }
  writer.join();
}

TEST_F(LiveRecording, ACopyIsWholeWhenReadLater) {
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint32_t i = 0; !stop; ++i) {
      Rotate(&shards()[i % kShardCount]);
      if (i % 16 == 0) sched_yield();
    }
  });
  const absl::Status copied = CopyRecording(path_, path_ + ".copy");
  stop = true;
  writer.join();
  ASSERT_TRUE(copied.ok()) << copied;
  absl::StatusOr<Recording> copy = ReadRecording(path_ + ".copy");
  unlink((path_ + ".copy").c_str());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_THAT(copy->damage, IsEmpty());
  if (copy->notes.empty()) {
    EXPECT_EQ(copy->totals.live_blocks, kBlocks);
  }
}

TEST_F(LiveRecording, AWriterThatStaysInTheMiddleDoesNotHoldUpTheReader) {
  Begin(&shards()[77]);
  Begin(&shards()[177]);
  header()->ranges_sequence = 1;
  absl::StatusOr<Recording> recording = ReadRecording(path_);
  ASSERT_TRUE(recording.ok());
  EXPECT_THAT(recording->damage, IsEmpty());
  EXPECT_EQ(recording->notes.size(), 2u);
  EXPECT_EQ(recording->totals.live_blocks, kBlocks);
  End(&shards()[77]);
  End(&shards()[177]);
}

// A writer that gets its turn in the middle of every read: what a scheduler may do, each time.
class InterruptedSource final : public ByteSource {
 public:
  InterruptedSource(absl::Span<const char> bytes, std::function<void(uint64_t offset)> turn)
      : bytes_(bytes), turn_(std::move(turn)) {}
  uint64_t Size() const override { return bytes_.size(); }
  uint64_t StoredBytes() const override { return bytes_.size(); }
  bool CanChange() const override { return true; }
  uint64_t ReadAt(uint64_t offset, void* to, uint64_t bytes) const override {
    const uint64_t half = bytes / 2;
    uint64_t got = MemorySource(bytes_).ReadAt(offset, to, half);
    turn_(offset);
    got += MemorySource(bytes_).ReadAt(offset + half, static_cast<char*>(to) + half, bytes - half);
    return got;
  }

 private:
  absl::Span<const char> bytes_;
  std::function<void(uint64_t)> turn_;
};

TEST_F(LiveRecording, AShardThatChangesInTheMiddleOfAReadIsReadAgain) {
  std::vector<uint32_t> changes(kShardCount, 0);
  const InterruptedSource source({base_, bytes_}, [&](uint64_t offset) {
    for (uint32_t i = 0; i < kShardCount; ++i) {
      if (shards()[i].offset == offset && ++changes[i] <= 3) Rotate(&shards()[i]);
    }
  });
  absl::StatusOr<Recording> recording = ReadRecordingFrom(source);
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ(recording->totals.live_blocks, kBlocks);
  EXPECT_THAT(recording->damage, IsEmpty());
  EXPECT_THAT(recording->notes, IsEmpty());
}

TEST_F(LiveRecording, AShardThatAlwaysChangesIsReadAllTheSame) {
  const InterruptedSource source({base_, bytes_}, [&](uint64_t offset) {
    if (shards()[7].offset == offset) Rotate(&shards()[7]);
  });
  absl::StatusOr<Recording> recording = ReadRecordingFrom(source);
  ASSERT_TRUE(recording.ok());
  EXPECT_THAT(recording->damage, IsEmpty());
  EXPECT_THAT(recording->notes, Contains("blocks of shard 7: changed while they were read, a few may be missing"));
  EXPECT_GE(recording->totals.live_blocks, kBlocks - 1);
}

TEST_F(LiveRecording, EveryTableIsReadAfterThoseThatReferToIt) {
  stack_count().store(1);
  uint32_t stack = 0;
  const InterruptedSource source({base_, bytes_}, [&](uint64_t) {
    // A new stack, and at once all blocks belong to it.
    if (stack + 1 == kStacks) return;
    stack_count().store(++stack + 1);
    for (uint32_t i = 0; i < kShardCount; ++i) {
      for (uint32_t slot = 0; slot < shards()[i].capacity; ++slot) {
        Block& block = slots(shards()[i])[slot];
        if (block.address != 0) block.stack = stack;
      }
    }
  });
  absl::StatusOr<Recording> recording = ReadRecordingFrom(source);
  ASSERT_TRUE(recording.ok());
  EXPECT_THAT(recording->damage, IsEmpty());
  uint32_t newest = 0;
  for (const Block& block : recording->blocks) newest = std::max(newest, block.stack);
  EXPECT_GT(newest, kShardCount);  // or nothing happened meanwhile
}

// The process ends while it is read: its last collections come after the blocks, which would seem to have survived
// them.
TEST_F(LiveRecording, ACollectionAfterTheBlocksWereReadDoesNotCount) {
  auto* isolate =
      reinterpret_cast<Isolate*>(base_ + header()->tables[static_cast<uint32_t>(TableId::kIsolates)].extents[0]);
  isolate->mark_compacts = 1;
  const InterruptedSource source({base_, bytes_}, [&](uint64_t offset) {
    if (offset == shards()[77].offset) isolate->mark_compacts += 2;
  });
  absl::StatusOr<Recording> recording = ReadRecordingFrom(source);
  ASSERT_TRUE(recording.ok());
  ASSERT_EQ(recording->isolates.size(), 1u);
  EXPECT_EQ(recording->isolates[0].mark_compacts, 1u);
  EXPECT_GT(isolate->mark_compacts, 1u);
}

TEST_F(LiveRecording, CheckpointsThatAreThinnedMeanwhileKeepTheirOwnEntries) {
  Table& checkpoints = header()->tables[static_cast<uint32_t>(TableId::kCheckpoints)];
  Table& entries = header()->tables[static_cast<uint32_t>(TableId::kCheckpointEntries)];
  auto* checkpoint = reinterpret_cast<Checkpoint*>(base_ + checkpoints.extents[0]);
  auto* entry = reinterpret_cast<CheckpointEntry*>(base_ + entries.extents[0]);
  const InterruptedSource source({base_, bytes_}, [&](uint64_t offset) {
    if (offset != entries.extents[0] || checkpoints.count == 1) return;
    checkpoint[0] = checkpoint[1];
    checkpoint[0].first_entry = 0;
    entry[0] = entry[1];
    entries.count = checkpoints.count = 1;
  });
  absl::StatusOr<Recording> recording = ReadRecordingFrom(source);
  ASSERT_TRUE(recording.ok());
  ASSERT_EQ(recording->checkpoints.size(), 1u);
  EXPECT_EQ(recording->checkpoints[0].time_ns, 2000u);
  EXPECT_EQ(recording->checkpoint_entries[recording->checkpoints[0].first_entry].live_blocks, 2u);
}

TEST_F(LiveRecording, AFileThatShrinksBetweenReadsIsNoCrash) {
  std::atomic<bool> stop = false;
  munmap(base_, bytes_);  // the writer itself would get the SIGBUS
  base_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::thread cutter([&] {
    while (!stop) {
      EXPECT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes_ / 2)), 0);
      EXPECT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes_)), 0);
    }
  });
  for (uint32_t round = 0; round < 60; ++round) EXPECT_TRUE(ReadRecording(path_).ok());
  stop = true;
  cutter.join();
}

}  // namespace
}  // namespace nodeleak::recording
