#include "preload/recorder/block_table.h"

namespace nodeleak::preload {
namespace {

using recording::Block;
using recording::Shard;

// Blocks that lie close together are used close together: those of a page share a shard, those of 128 bytes a run of
// slots, so that a few cache lines and pages of the table serve what a program does at a time. glibc's blocks are 32
// bytes apart or more.
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;
uint32_t ShardOf(uint64_t address) { return static_cast<uint32_t>((address >> 12) * kGolden >> 56); }
uint32_t SlotOf(uint64_t address, uint32_t capacity) {
  const uint64_t hash = (address >> 7) * kGolden << 8 >> 32;
  const uint32_t slot = static_cast<uint32_t>(hash * capacity >> 32) + (static_cast<uint32_t>(address >> 5) & 3);
  return slot < capacity ? slot : slot - capacity;
}
static_assert(recording::kShardCount == 256);

uint32_t Next(uint32_t slot, uint32_t capacity) { return slot + 1 == capacity ? 0 : slot + 1; }
uint32_t Distance(uint32_t from, uint32_t to, uint32_t capacity) {
  return to >= from ? to - from : to + capacity - from;
}

void Place(Block* entries, uint32_t capacity, const Block& block) {
  uint32_t slot = SlotOf(block.address, capacity);
  while (entries[slot].address != 0) slot = Next(slot, capacity);
  entries[slot] = block;
}

// Half as much again, in whole pages: between 1/2 and 3/4 full, a live block takes 32 to 48 bytes.
uint32_t GrownCapacity(uint32_t capacity) {
  const uint64_t bytes = capacity * sizeof(Block) * 3 / 2;
  const uint64_t pages = (bytes + recording::kPageBytes - 1) / recording::kPageBytes;
  return static_cast<uint32_t>(pages * recording::kPageBytes / sizeof(Block));
}

}  // namespace

void BlockTable::Attach(RecordingFile* file) {
  file_ = file;
  for (uint32_t i = 0; i < recording::kShardCount; ++i) KeepWhereabouts(i);
}

void BlockTable::KeepWhereabouts(uint32_t index) {
  const Shard& shard = file_->shards()[index];
  const Whereabouts place = {static_cast<uint32_t>(shard.offset / recording::kPageBytes), shard.capacity};
  __atomic_store_n(&whereabouts_[index], __builtin_bit_cast(uint64_t, place), __ATOMIC_RELAXED);
}

uint32_t BlockTable::FindSlot(const Block* entries, uint32_t capacity, uint64_t address) {
  uint32_t slot = SlotOf(address, capacity);
  while (entries[slot].address != 0 && entries[slot].address != address) slot = Next(slot, capacity);
  return slot;
}

bool BlockTable::Lock(Shard& shard) {
  Patience patience;
  for (;;) {
    uint32_t seen = __atomic_load_n(&shard.sequence, __ATOMIC_RELAXED);
    if ((seen & 1) == 0 &&
        __atomic_compare_exchange_n(&shard.sequence, &seen, seen + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
      __atomic_thread_fence(__ATOMIC_RELEASE);  // a reader that sees a changed entry sees the odd sequence
      return true;
    }
    if (!patience.WaitMore(seen)) return false;
  }
}

void BlockTable::Unlock(Shard& shard) {
  // The holder alone changes it, but others look at it meanwhile.
  const uint32_t sequence = __atomic_load_n(&shard.sequence, __ATOMIC_RELAXED);
  __atomic_store_n(&shard.sequence, sequence + 1, __ATOMIC_RELEASE);
}

bool BlockTable::Grow(Shard& shard) {
  const uint32_t capacity = GrownCapacity(shard.capacity);
  const uint64_t offset = file_->Allocate(capacity * sizeof(Block));
  if (offset == 0) return false;
  Block* to = reinterpret_cast<Block*>(file_->At(offset));
  const Block* from = Entries(shard);
  for (uint32_t slot = 0; slot < shard.capacity; ++slot) {
    if (from[slot].address != 0) Place(to, capacity, from[slot]);
  }
  const uint64_t old_offset = shard.offset;
  const uint64_t old_bytes = shard.capacity * sizeof(Block);
  // Killed between these two stores, the odd sequence tells the reader to look twice.
  __atomic_store_n(&shard.offset, offset, __ATOMIC_RELEASE);
  __atomic_store_n(&shard.capacity, capacity, __ATOMIC_RELEASE);
  KeepWhereabouts(static_cast<uint32_t>(&shard - file_->shards()));
  file_->Release(old_offset, old_bytes);
  return true;
}

void BlockTable::Prefetch(uint64_t address) const {
  const Whereabouts place =
      __builtin_bit_cast(Whereabouts, __atomic_load_n(&whereabouts_[ShardOf(address)], __ATOMIC_RELAXED));
  const uint64_t entries = uint64_t{place.page} * recording::kPageBytes;
  __builtin_prefetch(&file_->shards()[ShardOf(address)], 1);
  __builtin_prefetch(file_->At(entries + SlotOf(address, place.capacity) * sizeof(Block)), 1);
}

BlockTable::InsertResult BlockTable::Insert(const Block& block, Block* old) {
  Shard& shard = file_->shards()[ShardOf(block.address)];
  if (!Lock(shard)) return InsertResult::kLockTimeout;
  InsertResult result = InsertResult::kInserted;
  // At most 3/4 full; when it cannot grow, up to the last but one slot (a search must end at an empty one).
  if (shard.count * 4 >= shard.capacity * 3 && !Grow(shard) && shard.count + 1 >= shard.capacity) {
    result = InsertResult::kFull;
  } else {
    Block* entries = Entries(shard);
    const uint32_t capacity = shard.capacity;
    const uint32_t slot = FindSlot(entries, capacity, block.address);
    if (entries[slot].address == block.address) {
      *old = entries[slot];
      shard.live_bytes -= recording::BlockSize(*old) * recording::BlocksStoodFor(*old);
      result = InsertResult::kReplaced;
    } else {
      ++shard.count;
    }
    entries[slot] = block;
    shard.live_bytes += recording::BlockSize(block) * recording::BlocksStoodFor(block);
  }
  Unlock(shard);
  return result;
}

bool BlockTable::MayHold(uint64_t address) const {
  const Shard& shard = file_->shards()[ShardOf(address)];
  const uint32_t before = __atomic_load_n(&shard.sequence, __ATOMIC_ACQUIRE);
  // Before the offset: a capacity that is already the grown one brings the grown table with it.
  const uint32_t capacity = __atomic_load_n(&shard.capacity, __ATOMIC_ACQUIRE);
  const Block* entries = reinterpret_cast<const Block*>(file_->At(__atomic_load_n(&shard.offset, __ATOMIC_RELAXED)));
  // No block is anywhere behind an empty slot at its home.
  const uint64_t at_home = __atomic_load_n(&entries[SlotOf(address, capacity)].address, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  const bool changed = (before & 1) != 0 || __atomic_load_n(&shard.sequence, __ATOMIC_RELAXED) != before;
  return at_home != 0 || changed;
}

bool BlockTable::Holds(uint64_t address) {
  Shard& shard = file_->shards()[ShardOf(address)];
  if (!Lock(shard)) return false;
  const Block* entries = Entries(shard);
  const bool holds = entries[FindSlot(entries, shard.capacity, address)].address != 0;
  Unlock(shard);
  return holds;
}

bool BlockTable::Remove(uint64_t address, Block* removed) {
  Prefetch(address);  // the block's line and its shard's at once
  Shard& shard = file_->shards()[ShardOf(address)];
  if (!Lock(shard)) return false;
  Block* entries = Entries(shard);
  const uint32_t capacity = shard.capacity;
  const uint32_t slot = FindSlot(entries, capacity, address);
  const bool found = entries[slot].address != 0;
  if (found) {
    *removed = entries[slot];
    --shard.count;
    shard.live_bytes -= recording::BlockSize(*removed) * recording::BlocksStoodFor(*removed);
    // Backward shift: pull up every later entry of the run that may stand here.
    uint32_t hole = slot;
    for (uint32_t next = Next(slot, capacity); entries[next].address != 0; next = Next(next, capacity)) {
      const uint32_t home = SlotOf(entries[next].address, capacity);
      if (Distance(home, next, capacity) >= Distance(hole, next, capacity)) {
        entries[hole] = entries[next];
        hole = next;
      }
    }
    entries[hole].address = 0;
  }
  Unlock(shard);
  return found;
}

bool BlockTable::CopyShard(uint32_t index, Block* to, uint32_t room, uint32_t* count) {
  Shard& shard = file_->shards()[index];
  if (!Lock(shard)) {
    *count = 0;
    return false;
  }
  *count = shard.count;
  const bool fits = shard.count <= room;
  const Block* entries = Entries(shard);
  uint32_t copied = 0;
  for (uint32_t slot = 0; fits && slot < shard.capacity && copied < room; ++slot) {
    if (entries[slot].address != 0) to[copied++] = entries[slot];
  }
  Unlock(shard);
  if (fits) *count = copied;
  return fits;
}

BlockTable::Totals BlockTable::Live() const {
  Totals totals = {0, 0};
  for (uint32_t i = 0; i < recording::kShardCount; ++i) {
    const Shard& shard = file_->shards()[i];
    totals.bytes += __atomic_load_n(&shard.live_bytes, __ATOMIC_RELAXED);
    totals.blocks += __atomic_load_n(&shard.count, __ATOMIC_RELAXED);
  }
  return totals;
}

}  // namespace nodeleak::preload
