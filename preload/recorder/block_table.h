// Runs inside node, on any thread, possibly inside malloc. Never allocates outside the recording, throws, or takes two
// locks.
//
// Who is alive: address -> Block, in kShardCount open-addressing shards of the recording. A shard's `sequence` is its
// lock and its version (a reader outside copies the shard and checks it). Removal shifts entries back, so a shard has
// no tombstones and never needs cleaning.
#pragma once

#include <stdint.h>

#include "preload/recorder/recording_file.h"
#include "recording/layout.h"

namespace nodeleak::preload {

class BlockTable {
 public:
  enum class InsertResult : uint8_t { kInserted, kReplaced, kFull, kLockTimeout };

  void Attach(RecordingFile* file);  // that has its shards

  // Asks the processor for the lines that Insert of this address will touch: they arrive while the stack is walked.
  void Prefetch(uint64_t address) const;
  // kReplaced: a block at that address was never seen to be freed; *old is that block.
  InsertResult Insert(const recording::Block& block, recording::Block* old);
  // False only when there is certainly no block at the address, for sampled recordings, where that is the rule: no
  // lock, no write. The caller owns the address.
  bool MayHold(uint64_t address) const;
  // Takes the shard's lock; false also when that was not to be had.
  bool Holds(uint64_t address);
  // False when the address is not known (normal) or the lock was not to be had.
  bool Remove(uint64_t address, recording::Block* removed);

  struct Totals {
    uint64_t bytes;
    uint64_t blocks;
  };
  Totals Live() const;  // sum over the shards, without locks

  // Calls visit(block) for every live block; shard by shard under its lock.
  template <typename Visitor>
  void ForEach(Visitor visit) {
    for (uint32_t i = 0; i < recording::kShardCount; ++i) {
      recording::Shard& shard = file_->shards()[i];
      if (!Lock(shard)) continue;
      const recording::Block* entries = Entries(shard);
      for (uint32_t slot = 0; slot < shard.capacity; ++slot) {
        if (entries[slot].address != 0) visit(entries[slot]);
      }
      Unlock(shard);
    }
  }

  // Copies the live blocks of a shard; the lock is held for the copy only. False: the lock was not to be had, or there
  // was no room: then *count says how much is needed.
  bool CopyShard(uint32_t index, recording::Block* to, uint32_t room, uint32_t* count);

 private:
  static uint32_t FindSlot(const recording::Block* entries, uint32_t capacity, uint64_t address);  // or an empty one
  static bool Lock(recording::Shard& shard);
  static void Unlock(recording::Shard& shard);
  recording::Block* Entries(const recording::Shard& shard) const {
    return reinterpret_cast<recording::Block*>(file_->At(shard.offset));
  }
  bool Grow(recording::Shard& shard);

  // Where each shard's entries are: a hint for prefetching, close together, as the shards themselves are not.
  struct Whereabouts {
    uint32_t page;  // of the recording
    uint32_t capacity;
  };
  void KeepWhereabouts(uint32_t shard);

  RecordingFile* file_ = nullptr;
  uint64_t whereabouts_[recording::kShardCount] = {};  // Whereabouts, each read and written whole
};

}  // namespace nodeleak::preload
