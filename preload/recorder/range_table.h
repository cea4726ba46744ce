// Runs inside node, on any thread, possibly inside a collection. Never allocates outside the recording or throws.
//
// Mappings made while we watched, kept sorted by start in the recording itself: splits on partial unmaps and
// protections, replaces under MAP_FIXED. A few thousand entries in a big process, so an insertion moves some tens of
// kilobytes at most.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
#include "recording/layout.h"

namespace nodeleak::preload {

// Per-stack counters follow the ranges; told under the table's lock.
using RangeFreed = void (*)(const recording::Range& part);

class RangeTable {
 public:
  void Attach(RecordingFile* file, RangeFreed freed);

  // False: no room (or the lock was not to be had); the mapping is not recorded.
  bool Insert(const recording::Range& range);  // replaces what lies under it
  bool Remove(uint64_t start, uint64_t end);
  // What had no access until now is born now: pieces of a reservation that is committed bit by bit.
  bool Protect(uint64_t start, uint64_t end, uint32_t protection, uint32_t tick, uint32_t gc);
  // Moves what is recorded of [old_start, old_end) to new_start, cut or stretched to new_bytes. False: was not known.
  bool Move(uint64_t old_start, uint64_t old_end, uint64_t new_start, uint64_t new_bytes);

  // Calls visit(range) for each, in the order of their addresses, under the lock: it must not map or unmap through us.
  // False: the lock was not to be had.
  template <typename Visitor>
  bool ForEach(Visitor visit) {
    if (!Lock()) return false;
    for (uint64_t i = 0; i < ranges_.count(); ++i) visit(ranges_[i]);
    Unlock();
    return true;
  }

  bool Covers(uint64_t address);  // false also when the lock was not to be had

  // Private, anonymous and not PROT_NONE.
  uint64_t CommittedBytes();

 private:
  bool Lock();
  void Unlock();
  uint64_t LowerBound(uint64_t address) const;  // first entry with end > address
  bool SplitAt(uint64_t address);
  bool InsertAt(uint64_t index, const recording::Range& range);
  void EraseAt(uint64_t first, uint64_t last);
  bool RemoveLocked(uint64_t start, uint64_t end, bool tell);
  void MergeAround(uint64_t start, uint64_t end);

  RecordingFile* file_ = nullptr;
  AppendTable<recording::Range> ranges_;
  RangeFreed freed_ = nullptr;
};

}  // namespace nodeleak::preload
