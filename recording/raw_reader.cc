#include "recording/raw_reader.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace nodeleak::recording {
namespace {

constexpr uint32_t kAttemptsWhileRunning = 40;
constexpr uint32_t kAttemptsAfterwards = 3;  // "not running" may be a pid of another namespace
constexpr uint32_t kYieldsBeforeSleeping = 8;
constexpr long kSleepNanoseconds = 50'000;

// A recording is as large as its disk usage says, but for a file system that compresses.
constexpr uint64_t kMostCompression = 64;
constexpr uint64_t kAlwaysAllowed = 16 << 20;

constexpr const char* kTableNames[kTableCount] = {
    "modules",       "strings",         "JavaScript functions",
    "frames",        "stack nodes",     "stacks",
    "ranges",        "threads",         "isolates",
    "timeline",      "checkpoints",     "checkpoint entries",
    "heap spaces",   "memory pictures", "memory uses",
    "memory arenas", "own mappings",    "collected",
    "answers",       "older buffers",   "lists of buffers",
};

uint64_t MultiplyOrMax(uint64_t a, uint64_t b) {
  uint64_t product;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

// What a person recognizes: the first bytes as text, else as numbers.
std::string DescribeBeginning(absl::Span<const char> bytes) {
  constexpr size_t kShown = 12;
  const absl::string_view begin(bytes.data(), std::min(bytes.size(), kShown));
  return absl::StrCat("starts with \"", absl::CHexEscape(begin), "\"");
}

}  // namespace

const char* TableName(TableId id) { return kTableNames[static_cast<uint32_t>(id)]; }

absl::StatusOr<Header> ReadHeader(const ByteSource& source) {
  const uint64_t size = source.Size();
  if (size == 0) return absl::InvalidArgumentError("it is empty");
  Header header = {};
  const uint64_t got = source.ReadAt(0, &header, sizeof(header));
  if (got == 0) return absl::InvalidArgumentError("its first byte cannot be read");
  if (got < sizeof(header.magic) || header.magic != kMagic) {
    const char* bytes = reinterpret_cast<const char*>(&header);
    if (got >= sizeof(header.magic) && header.magic == 0 && got == sizeof(header)) {
      return absl::InvalidArgumentError(
          "it is not a nodeleak recording (starts with zeroes: is the process only just starting, or did it die "
          "then?)");
    }
    return absl::InvalidArgumentError(
        absl::StrCat("it is not a nodeleak recording (", DescribeBeginning({bytes, got}), ")"));
  }
  constexpr uint64_t kVersionEnd = offsetof(Header, version) + sizeof(header.version);
  if (got >= kVersionEnd && header.version > kFormatVersion) {
    return absl::InvalidArgumentError(absl::StrCat("it was written by a newer nodeleak (format ", header.version,
                                                   ", this one reads ", kFormatVersion, "): update nodeleak"));
  }
  if (got < sizeof(header)) {
    return absl::InvalidArgumentError(absl::StrCat("it is ", got, " bytes long: too short"));
  }
  if (header.version != kFormatVersion || header.header_bytes != sizeof(Header)) {
    return absl::InvalidArgumentError(
        absl::StrCat("its header is damaged (format ", header.version, ", header of ", header.header_bytes, " bytes)"));
  }
  return header;
}

RawReader::RawReader(const ByteSource& source, const Header& header, bool running)
    : source_(source),
      shards_offset_(header.shards_offset),
      attempts_(!source.CanChange() ? 1
                : running           ? kAttemptsWhileRunning
                                    : kAttemptsAfterwards),
      // Twice the file: a shard that doubles and a table that grows while we read are counted twice.
      budget_(kAlwaysAllowed / 2 + std::min(MultiplyOrMax(source.Size(), 2),
                                            MultiplyOrMax(source.StoredBytes(), kMostCompression) + kAlwaysAllowed)) {}

uint64_t RawReader::TakeBudget(uint64_t bytes) {
  const uint64_t taken = std::min(bytes, budget_);
  budget_ -= taken;
  return taken;
}

uint64_t RawReader::BytesAfter(uint64_t offset) const {
  const uint64_t size = source_.Size();
  return offset < size ? size - offset : 0;
}

bool RawReader::ReadTableHead(TableId id, uint32_t entry_bytes, Table* table, std::string* problem) const {
  const uint64_t offset = offsetof(Header, tables) + static_cast<uint32_t>(id) * sizeof(Table);
  if (!source_.ReadValue(offset, table)) {
    *problem = absl::StrCat("table of ", TableName(id), ": the file ends before it");
    return false;
  }
  const bool never_used = table->entry_bytes == 0 && table->first_entries == 0 && table->count == 0;
  if (never_used) return false;
  const bool power_of_two = table->first_entries != 0 && (table->first_entries & (table->first_entries - 1)) == 0;
  if (table->entry_bytes != entry_bytes || !power_of_two) {
    *problem =
        absl::StrCat("table of ", TableName(id), ": left out, its head is damaged (entries of ", table->entry_bytes,
                     " bytes where ", entry_bytes, " are right, first extent of ", table->first_entries, ")");
    return false;
  }
  return table->count != 0;
}

void RawReader::NoteMissing(TableId id, uint64_t missing, uint64_t count, const char* why, std::string* problem) const {
  *problem = absl::StrCat("table of ", TableName(id), ": ", missing, " of ", count, " entries are missing, ", why);
}

void RawReader::WaitForWriter(uint32_t attempt) const {
  if (attempt < kYieldsBeforeSleeping) {
    sched_yield();
    return;
  }
  const timespec pause = {0, kSleepNanoseconds};
  nanosleep(&pause, nullptr);
}

TableCopy<Isolate> RawReader::ReadIsolates() {
  TableCopy<Isolate> copy = ReadTable<Isolate>(TableId::kIsolates);
  const size_t known = std::min(copy.entries.size(), isolates_before_.size());
  std::copy_n(isolates_before_.begin(), known, copy.entries.begin());
  return copy;
}

TableCopy<Range> RawReader::ReadRanges(bool* torn) {
  constexpr uint64_t kSequenceAt = offsetof(Header, ranges_sequence);
  TableCopy<Range> copy;
  for (uint32_t attempt = 0; attempt < attempts_; ++attempt) {
    uint32_t before = 0, after = 0;
    if (!source_.ReadValue(kSequenceAt, &before)) break;
    if (before % 2 == 0 || attempt + 1 == attempts_) {
      const uint64_t budget = budget_;
      copy = ReadTable<Range>(TableId::kRanges);
      *torn = before % 2 != 0 || !source_.ReadValue(kSequenceAt, &after) || before != after;
      if (!*torn) return copy;
      if (attempt + 1 < attempts_) budget_ = budget;  // the next attempt replaces this one
    }
    if (attempt + 1 < attempts_) WaitForWriter(attempt);
  }
  *torn = true;
  return copy;
}

void RawReader::ReadCheckpoints(TableCopy<Checkpoint>* checkpoints, TableCopy<CheckpointEntry>* entries) {
  for (uint32_t attempt = 0; attempt < attempts_; ++attempt) {
    const uint64_t budget = budget_;
    *checkpoints = ReadTable<Checkpoint>(TableId::kCheckpoints);
    *entries = ReadTable<CheckpointEntry>(TableId::kCheckpointEntries);
    if (!source_.CanChange()) return;
    const TableCopy<Checkpoint> after = ReadTable<Checkpoint>(TableId::kCheckpoints);
    const size_t count = checkpoints->entries.size();
    const bool same =
        after.entries.size() >= count &&
        std::equal(checkpoints->entries.begin(), checkpoints->entries.end(), after.entries.begin(),
                   [](const Checkpoint& a, const Checkpoint& b) {
                     return a.time_ns == b.time_ns && a.first_entry == b.first_entry && a.entry_count == b.entry_count;
                   });
    if (same) return;
    if (attempt + 1 < attempts_) budget_ = budget;
    WaitForWriter(attempt);
  }
  checkpoints->entries.clear();
  entries->entries.clear();
}

void RawReader::ReadPictures(TableCopy<MemoryPicture>* pictures, TableCopy<MemoryUse>* uses,
                             TableCopy<MemoryArena>* arenas) {
  *pictures = ReadTable<MemoryPicture>(TableId::kMemoryPictures);
  *uses = ReadTable<MemoryUse>(TableId::kMemoryUses);
  *arenas = ReadTable<MemoryArena>(TableId::kMemoryArenas);
  if (!source_.CanChange()) return;
  const TableCopy<MemoryPicture> after = ReadTable<MemoryPicture>(TableId::kMemoryPictures);
  for (size_t i = 0; i < pictures->entries.size(); ++i) {
    const bool same = i < after.entries.size() && after.entries[i].sequence == pictures->entries[i].sequence;
    if (!same) pictures->entries[i] = {};
  }
}

bool RawReader::HasShards() const {
  return shards_offset_ >= sizeof(Header) && BytesAfter(shards_offset_) >= kShardCount * sizeof(Shard);
}

// False: it changed meanwhile; what was read is in `copy` all the same.
bool RawReader::ReadShardOnce(uint32_t index, bool even_if_odd, ShardCopy* copy) {
  const uint64_t offset = shards_offset_ + index * sizeof(Shard);
  copy->slots.clear();
  copy->missing_slots = 0;
  copy->unreadable = !source_.ReadValue(offset, &copy->shard);
  if (copy->unreadable) return true;
  const Shard& shard = copy->shard;
  const bool odd = shard.sequence % 2 != 0;
  if (odd && !even_if_odd) return false;
  if (shard.capacity != 0) {
    copy->unreadable = shard.offset < sizeof(Header);
    if (!copy->unreadable) {
      const uint64_t in_file = std::min<uint64_t>(shard.capacity, BytesAfter(shard.offset) / sizeof(Block));
      const uint64_t allowed = TakeBudget(in_file * sizeof(Block)) / sizeof(Block);
      copy->slots.resize(allowed);
      const uint64_t got = source_.ReadAt(shard.offset, copy->slots.data(), allowed * sizeof(Block)) / sizeof(Block);
      copy->slots.resize(got);
      copy->missing_slots = shard.capacity - got;
    }
  }
  Shard after;
  const bool same = source_.ReadValue(offset, &after) && after.sequence == shard.sequence &&
                    after.offset == shard.offset && after.capacity == shard.capacity;
  return same && !odd;
}

void RawReader::ReadShard(uint32_t index, ShardCopy* copy) {
  for (uint32_t attempt = 0; attempt < attempts_; ++attempt) {
    const bool last = attempt + 1 == attempts_;
    const uint64_t budget = budget_;
    copy->torn = !ReadShardOnce(index, /*even_if_odd=*/last, copy);
    if (!copy->torn || last) return;
    budget_ = budget;
    WaitForWriter(attempt);
  }
}

}  // namespace nodeleak::recording
