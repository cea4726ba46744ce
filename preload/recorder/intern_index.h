// Runs inside node. Never allocates through a hooked allocator, never throws.
//
// A hash index over entries that live elsewhere (in a table of the recording): 32 bits of hash and the entry's number,
// in buckets of a page; a full one is split in two by the next bit of the hash, so growing never takes longer than
// that. Insert is called under the lock of the table it indexes. Find may run beside it without the lock: what it finds
// is right, but what is being moved it may miss: before an entry is made, it is looked for once more under the lock.
#pragma once

#include <stdint.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

inline uint64_t HashBytes(const void* data, uint64_t bytes, uint64_t seed = 0) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint64_t hash = seed ^ (bytes * 0x9e3779b97f4a7c15ull);
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint64_t word;
    __builtin_memcpy(&word, p, 8);
    hash = (hash ^ word) * 0xbf58476d1ce4e5b9ull;
    hash ^= hash >> 31;
  }
  uint64_t tail = 0;
  __builtin_memcpy(&tail, p, bytes);
  hash = (hash ^ tail) * 0x94d049bb133111ebull;
  return hash ^ hash >> 29;
}

class InternIndex {
 public:
  static constexpr uint32_t kNone = 0xffffffffu;

  // The entry with this hash for which equal(index) holds, or kNone.
  template <typename Equal>
  uint32_t Find(uint64_t hash, Equal equal) const {
    const Directory* directory = __atomic_load_n(&directory_, __ATOMIC_ACQUIRE);
    if (directory == nullptr) return kNone;
    const uint32_t tag = Tag(hash);
    const Bucket* bucket = __atomic_load_n(&directory->buckets[Number(tag, directory->bits)], __ATOMIC_ACQUIRE);
    for (uint32_t i = 0, slot = FirstSlot(tag); i < kSlots; ++i, slot = NextSlot(slot)) {
      const uint64_t word = __atomic_load_n(&bucket->slots[slot], __ATOMIC_ACQUIRE);
      if (word == 0) return kNone;
      const uint32_t index = static_cast<uint32_t>(word) - 1;
      if (static_cast<uint32_t>(word >> 32) == tag && equal(index)) return index;
    }
    return kNone;
  }

  // False: no memory, or too many alike.
  bool Insert(uint64_t hash, uint32_t index);
  void Free();

 private:
  // A slot: tag << 32 | index + 1; 0 is empty. At most three quarters are taken.
  static constexpr uint32_t kSlots = 511, kMostTaken = kSlots / 4 * 3;
  struct Bucket {
    uint32_t taken;
    uint32_t bits;  // of the tag that all its entries have in common
    uint64_t slots[kSlots];
  };
  static_assert(sizeof(Bucket) == 4096);
  struct Directory {  // by the tag's highest bits
    uint32_t bits;
    Bucket* buckets[];
  };
  struct Chunk {
    Bucket* buckets;
    uint32_t count;
  };
  static constexpr uint32_t kMostBits = 16;
  static constexpr uint32_t kMostChunks = 1024, kLargestChunk = 64;

  static uint32_t Tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  static uint32_t Number(uint32_t tag, uint32_t bits) { return static_cast<uint32_t>(uint64_t{tag} << bits >> 32); }
  static uint32_t FirstSlot(uint32_t tag) { return (tag & 0xffff) * kSlots >> 16; }
  static uint32_t NextSlot(uint32_t slot) { return slot + 1 == kSlots ? 0 : slot + 1; }

  static void Place(Bucket* bucket, uint64_t word);
  static uint64_t DirectoryBytes(uint32_t bits);
  Bucket* NewBucket(uint32_t bits);
  bool Start();
  bool DoubleDirectory();
  bool Split(Bucket* bucket, uint32_t tag);

  Directory* directory_ = nullptr;
  Directory* directories_[kMostBits + 1] = {};  // by bits: a Find may still look at an earlier one
  Chunk chunks_[kMostChunks] = {};
  uint32_t chunk_count_ = 0;
  uint32_t used_ = 0;  // buckets of the last chunk
};

}  // namespace nodeleak::preload
