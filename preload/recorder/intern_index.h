// Runs inside node, under the lock of the table it indexes. Never allocates through a hooked allocator, never throws.
//
// A hash index over entries that live elsewhere (in a table of the recording): 32 bits of hash and the entry's number.
// Doubles in anonymous memory; when memory cannot be had it stops growing and Insert says so.
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
    if (capacity_ == 0) return kNone;
    const uint32_t tag = static_cast<uint32_t>(hash >> 32);
    for (uint32_t slot = static_cast<uint32_t>(hash) & (capacity_ - 1); slots_[slot].index_plus_one != 0;
         slot = (slot + 1) & (capacity_ - 1)) {
      if (slots_[slot].tag == tag && equal(slots_[slot].index_plus_one - 1)) return slots_[slot].index_plus_one - 1;
    }
    return kNone;
  }

  // `rehash(index)` gives an entry's hash again, for growing.
  template <typename Rehash>
  bool Insert(uint64_t hash, uint32_t index, Rehash rehash) {
    if ((count_ + 1) * 4 > capacity_ * 3 && !Grow(rehash)) return false;
    Place(hash, index);
    ++count_;
    return true;
  }

  void Free() {
    UnmapMemory(slots_, capacity_ * sizeof(Slot));
    slots_ = nullptr;
    capacity_ = count_ = 0;
  }

 private:
  struct Slot {
    uint32_t tag;
    uint32_t index_plus_one;
  };
  static constexpr uint32_t kFirstCapacity = 1024;

  void Place(uint64_t hash, uint32_t index) {
    uint32_t slot = static_cast<uint32_t>(hash) & (capacity_ - 1);
    while (slots_[slot].index_plus_one != 0) slot = (slot + 1) & (capacity_ - 1);
    slots_[slot] = {static_cast<uint32_t>(hash >> 32), index + 1};
  }

  template <typename Rehash>
  bool Grow(Rehash rehash) {
    Slot* old = slots_;
    const uint32_t old_capacity = capacity_;
    const uint32_t capacity = old_capacity == 0 ? kFirstCapacity : old_capacity * 2;
    Slot* larger = static_cast<Slot*>(MapTouchedMemory(capacity * sizeof(Slot)));
    if (larger == nullptr) return count_ + 1 < capacity_;  // an empty slot must remain
    slots_ = larger;
    capacity_ = capacity;
    for (uint32_t i = 0; i < old_capacity; ++i) {
      if (old[i].index_plus_one != 0) Place(rehash(old[i].index_plus_one - 1), old[i].index_plus_one - 1);
    }
    UnmapMemory(old, old_capacity * sizeof(Slot));
    return true;
  }

  Slot* slots_ = nullptr;
  uint32_t capacity_ = 0;
  uint32_t count_ = 0;
};

}  // namespace nodeleak::preload
