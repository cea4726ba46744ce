#include "preload/recorder/intern_index.h"

#include <string.h>

namespace nodeleak::preload {

uint64_t InternIndex::DirectoryBytes(uint32_t bits) { return sizeof(Directory) + (sizeof(void*) << bits); }

InternIndex::Bucket* InternIndex::NewBucket(uint32_t bits) {
  if (chunk_count_ == 0 || used_ == chunks_[chunk_count_ - 1].count) {
    if (chunk_count_ == kMostChunks) return nullptr;
    const uint32_t count = chunk_count_ < 6 ? 2u << chunk_count_ : kLargestChunk;
    auto* buckets = static_cast<Bucket*>(MapTouchedMemory(count * sizeof(Bucket)));
    if (buckets == nullptr) return nullptr;
    chunks_[chunk_count_++] = {buckets, count};
    used_ = 0;
  }
  Bucket* bucket = &chunks_[chunk_count_ - 1].buckets[used_++];
  bucket->bits = bits;
  return bucket;
}

bool InternIndex::Start() {
  auto* directory = static_cast<Directory*>(MapMemory(DirectoryBytes(0)));
  if (directory == nullptr) return false;
  directories_[0] = directory;
  directory->buckets[0] = NewBucket(0);
  if (directory->buckets[0] != nullptr) __atomic_store_n(&directory_, directory, __ATOMIC_RELEASE);
  return directory_ != nullptr;
}

void InternIndex::Place(Bucket* bucket, uint64_t word) {
  uint32_t slot = FirstSlot(static_cast<uint32_t>(word >> 32));
  while (bucket->slots[slot] != 0) slot = NextSlot(slot);
  __atomic_store_n(&bucket->slots[slot], word, __ATOMIC_RELEASE);
  ++bucket->taken;
}

bool InternIndex::DoubleDirectory() {
  const Directory* old = directory_;
  if (old->bits == kMostBits) return false;
  auto* larger = static_cast<Directory*>(MapMemory(DirectoryBytes(old->bits + 1)));
  if (larger == nullptr) return false;
  larger->bits = old->bits + 1;
  for (uint32_t i = 0; i < 1u << larger->bits; ++i) larger->buckets[i] = old->buckets[i >> 1];
  directories_[larger->bits] = larger;
  __atomic_store_n(&directory_, larger, __ATOMIC_RELEASE);
  return true;
}

// The half with the next bit set goes into a new bucket, the other half is placed anew.
bool InternIndex::Split(Bucket* bucket, uint32_t tag) {
  if (bucket->bits == directory_->bits && !DoubleDirectory()) return false;
  Bucket* other = NewBucket(bucket->bits + 1);
  if (other == nullptr) return false;
  uint64_t words[kSlots];
  memcpy(words, bucket->slots, sizeof words);
  for (uint64_t& slot : bucket->slots) __atomic_store_n(&slot, uint64_t{0}, __ATOMIC_RELAXED);
  bucket->taken = 0;
  ++bucket->bits;
  for (const uint64_t word : words)
    if (word != 0) Place((word << (bucket->bits - 1) >> 63) != 0 ? other : bucket, word);
  const uint32_t span = 1u << (directory_->bits - bucket->bits);  // of directory entries
  const uint32_t first = (Number(tag, bucket->bits) | 1u) * span;
  for (uint32_t i = first; i < first + span; ++i) __atomic_store_n(&directory_->buckets[i], other, __ATOMIC_RELEASE);
  return true;
}

bool InternIndex::Insert(uint64_t hash, uint32_t index) {
  if (directory_ == nullptr && !Start()) return false;
  const uint32_t tag = Tag(hash);
  Bucket* bucket = directory_->buckets[Number(tag, directory_->bits)];
  while (bucket->taken >= kMostTaken) {
    if (!Split(bucket, tag)) break;
    bucket = directory_->buckets[Number(tag, directory_->bits)];
  }
  if (bucket->taken == kSlots) return false;
  Place(bucket, uint64_t{tag} << 32 | (index + 1));
  return true;
}

void InternIndex::Free() {
  for (uint32_t bits = 0; bits <= kMostBits; ++bits) UnmapMemory(directories_[bits], DirectoryBytes(bits));
  for (uint32_t i = 0; i < chunk_count_; ++i) UnmapMemory(chunks_[i].buckets, chunks_[i].count * sizeof(Bucket));
  memset(static_cast<void*>(directories_), 0, sizeof directories_);
  directory_ = nullptr;
  chunk_count_ = used_ = 0;
}

}  // namespace nodeleak::preload
