// Runs inside node, on any thread, possibly inside malloc. Never allocates outside the recording or throws.
//
// An append-only table of the recording (recording::Table): entries never move, so a reference stays good, and extents
// double.
#pragma once

#include <stdint.h>

#include "preload/recorder/recording_file.h"
#include "recording/layout.h"

namespace nodeleak::preload {

template <typename Entry>
class AppendTable {
 public:
  // `first_entries` is a power of two.
  void Attach(RecordingFile* file, recording::TableId id, uint32_t first_entries) {
    file_ = file;
    table_ = &file->header()->tables[static_cast<uint32_t>(id)];
    table_->entry_bytes = sizeof(Entry);
    table_->first_entries = first_entries;
    first_ = first_entries;
    first_log2_ = Log2(first_entries);
  }

  uint64_t count() const { return __atomic_load_n(&table_->count, __ATOMIC_ACQUIRE); }

  Entry& operator[](uint64_t index) const {
    const uint64_t j = index + first_;
    const uint32_t log2 = Log2(j);
    return extents_[log2 - first_log2_][j - (uint64_t{1} << log2)];
  }

  // Makes room for entries up to `count`; false when the recording is full. Callers serialize.
  bool Reserve(uint64_t count) {
    while (capacity_ < count) {
      const uint32_t extent = Log2(capacity_ + first_) - first_log2_;
      if (extent >= recording::kMaxExtents) return false;
      const uint64_t entries = first_ << extent;
      const uint64_t offset = file_->Allocate(entries * sizeof(Entry));
      if (offset == 0) return false;
      extents_[extent] = reinterpret_cast<Entry*>(file_->At(offset));
      __atomic_store_n(&table_->extents[extent], offset, __ATOMIC_RELEASE);
      capacity_ += entries;
    }
    return true;
  }

  // Callers serialize. Returns the index, or recording::kNoIndex when the recording is full.
  uint32_t Append(const Entry& entry) {
    const uint64_t index = table_->count;
    if (index >= recording::kNoIndex || !Reserve(index + 1)) return recording::kNoIndex;
    (*this)[index] = entry;
    Publish(index + 1);
    return static_cast<uint32_t>(index);
  }

  // A reader sees entries below `count` complete.
  void Publish(uint64_t count) { __atomic_store_n(&table_->count, count, __ATOMIC_RELEASE); }

 private:
  static uint32_t Log2(uint64_t value) { return 63u - static_cast<uint32_t>(__builtin_clzll(value)); }

  RecordingFile* file_ = nullptr;
  recording::Table* table_ = nullptr;
  uint64_t capacity_ = 0;
  // What an index needs, beside each other. An entry's extent is there before its index is told.
  uint64_t first_ = 0;
  uint32_t first_log2_ = 0;
  Entry* extents_[recording::kMaxExtents] = {};
};

}  // namespace nodeleak::preload
