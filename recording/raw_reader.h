// Outside. The pieces of a recording as they lie in the file: header, tables, shards. Offsets, counts and sizes are
// checked here; what the entries say is not (validate.h).
//
// Order is what keeps a live recording whole: an entry is complete before anything refers to it, so whoever reads the
// referring table first and the table it refers to afterwards finds everything.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "recording/byte_source.h"
#include "recording/layout.h"

namespace nodeleak::recording {

// Errors say what the file is instead: "it is not a nodeleak recording (starts with "#!/bin/sh")".
absl::StatusOr<Header> ReadHeader(const ByteSource& source);

const char* TableName(TableId id);

template <typename T>
struct TableCopy {
  Table table = {};  // as it was when the entries were read
  std::vector<T> entries;
  std::string problem;  // empty, or a sentence: which entries are missing, and why
};

struct ShardCopy {
  Shard shard = {};
  std::vector<Block> slots;    // reused from shard to shard: 256 allocations of megabytes are page faults
  bool torn = false;           // kept changing, or the process died while it changed: an entry may be double or missing
  bool unreadable = false;     // the shard itself makes no sense
  uint64_t missing_slots = 0;  // beyond the end of the file
};

class RawReader {
 public:
  // `running`: is it worth waiting for a writer to finish?
  RawReader(const ByteSource& source, const Header& header, bool running);

  template <typename T>
  TableCopy<T> ReadTable(TableId id) {
    TableCopy<T> copy;
    if (!ReadTableHead(id, sizeof(T), &copy.table, &copy.problem)) return copy;
    ForEachExtent(id, copy.table, &copy.problem, [&](uint64_t offset, uint64_t entries) {
      const size_t before = copy.entries.size();
      copy.entries.resize(before + entries);
      const uint64_t got = source_.ReadAt(offset, copy.entries.data() + before, entries * sizeof(T)) / sizeof(T);
      copy.entries.resize(before + got);
      return got;
    });
    return copy;
  }

  // How often each isolate has collected, and when, must be no news to the blocks: garbage that was still there when
  // they were read, and collected right after, would pass for kept. So isolates are remembered before anything else is
  // read; the header that counts is one read after that. ReadIsolates comes where what refers to them has been read:
  // what it adds are isolates that were not there before.
  void RememberIsolates() { isolates_before_ = ReadTable<Isolate>(TableId::kIsolates).entries; }
  TableCopy<Isolate> ReadIsolates();

  // kRanges moves its entries: read under Header::ranges_sequence.
  TableCopy<Range> ReadRanges(bool* torn);

  // The process thins checkpoints in place and moves their entries: both are read until the checkpoints are the same
  // before and after the entries. Not the same after all attempts: no checkpoints.
  void ReadCheckpoints(TableCopy<Checkpoint>* checkpoints, TableCopy<CheckpointEntry>* entries);

  // The process replaces pictures: one that changed while it was read is emptied (moment 0).
  void ReadPictures(TableCopy<MemoryPicture>* pictures, TableCopy<MemoryUse>* uses, TableCopy<MemoryArena>* arenas);

  // False: the shards are not in the file.
  bool HasShards() const;
  void ReadShard(uint32_t index, ShardCopy* copy);

 private:
  // All tables and shards together cannot be larger than the file they are in. Hostile extents that lie on top of each
  // other claim more; a huge sparse file claims what nobody stored.
  uint64_t TakeBudget(uint64_t bytes);

  bool ReadTableHead(TableId id, uint32_t entry_bytes, Table* table, std::string* problem) const;
  void NoteMissing(TableId id, uint64_t missing, uint64_t count, const char* why, std::string* problem) const;
  uint64_t BytesAfter(uint64_t offset) const;
  bool ReadShardOnce(uint32_t index, bool even_if_odd, ShardCopy* copy);
  void WaitForWriter(uint32_t attempt) const;

  // Calls read(offset, entries) for the part of each extent that holds entries and lies in the file.
  template <typename Read>
  void ForEachExtent(TableId id, const Table& table, std::string* problem, Read read) {
    uint64_t left = table.count;
    const char* why = "its extents are not there";
    for (uint32_t k = 0; k < kMaxExtents && left != 0; ++k) {
      const uint64_t offset = table.extents[k];
      if (offset < sizeof(Header)) break;
      const uint64_t wanted = std::min(left, static_cast<uint64_t>(table.first_entries) << k);
      const uint64_t in_file = std::min(wanted, BytesAfter(offset) / table.entry_bytes);
      const uint64_t allowed = TakeBudget(in_file * table.entry_bytes) / table.entry_bytes;
      const uint64_t got = allowed == 0 ? 0 : read(offset, allowed);
      left -= got;
      if (got < wanted) {
        why = allowed < in_file ? "the tables claim more than the file holds" : "the file ends before";
        break;
      }
    }
    if (left != 0) NoteMissing(id, left, table.count, why, problem);
  }

  const ByteSource& source_;
  const uint64_t shards_offset_;
  const uint32_t attempts_;
  uint64_t budget_;
  std::vector<Isolate> isolates_before_;
};

}  // namespace nodeleak::recording
