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
  void Attach(RecordingFile* file, recording::TableId id, uint32_t first_entries) {
    file_ = file;
    table_ = &file->header()->tables[static_cast<uint32_t>(id)];
    table_->entry_bytes = sizeof(Entry);
    table_->first_entries = first_entries;
  }

  uint64_t count() const { return __atomic_load_n(&table_->count, __ATOMIC_ACQUIRE); }

  Entry& operator[](uint64_t index) const {
    const uint64_t j = index + table_->first_entries;
    const uint32_t extent = Log2(j) - Log2(table_->first_entries);
    const uint64_t position = j - (static_cast<uint64_t>(table_->first_entries) << extent);
    return reinterpret_cast<Entry*>(file_->At(table_->extents[extent]))[position];
  }

  // Makes room for entries up to `count`; false when the recording is full. Callers serialize.
  bool Reserve(uint64_t count) {
    while (capacity_ < count) {
      const uint32_t extent = Log2(capacity_ + table_->first_entries) - Log2(table_->first_entries);
      if (extent >= recording::kMaxExtents) return false;
      const uint64_t entries = static_cast<uint64_t>(table_->first_entries) << extent;
      const uint64_t offset = file_->Allocate(entries * sizeof(Entry));
      if (offset == 0) return false;
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
};

}  // namespace nodeleak::preload
