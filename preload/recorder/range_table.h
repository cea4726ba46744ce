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

// Per-stack counters follow the ranges: what is no longer mapped.
using RangeFreed = void (*)(const recording::Range& part);

// In the hands of a thread that unmaps or moves it: when the system call returns, the addresses may already be mapped
// by another thread and recorded under its name.
struct TakenRanges {
  static constexpr uint32_t kMost = 16;  // the rest is told as freed at once
  recording::Range ranges[kMost];
  uint32_t count;
  uint64_t start, end;
};

class RangeTable {
 public:
  void Attach(RecordingFile* file, RangeFreed freed);

  // False: no room (or the lock was not to be had); the mapping is not recorded.
  bool Insert(const recording::Range& range);  // replaces what lies under it
  // What was recorded of [start, end) is out of the table, until one of the next three. False: all of it is still in.
  bool Take(uint64_t start, uint64_t end, TakenRanges* taken);
  bool PutBack(const TakenRanges& taken);
  void Forget(const TakenRanges& taken);
  // At new_start, cut or stretched to new_bytes; replaces what lies there. What is cut off is told, what is added goes
  // to `added` (empty: nothing).
  bool PutAt(const TakenRanges& taken, uint64_t new_start, uint64_t new_bytes, recording::Range* added);
  // What had no access until now is born now: pieces of a reservation that is committed bit by bit.
  bool Protect(uint64_t start, uint64_t end, uint32_t protection, uint32_t tick, uint32_t gc);

  // Calls visit(range) for each, in the order of their addresses, under the lock: it must not map or unmap through us.
  // False: the lock was not to be had.
  template <typename Visitor>
  bool ForEach(Visitor visit) {
    if (!Lock()) return false;
    for (uint64_t i = 0; i < ranges_.count(); ++i) visit(ranges_[i]);
    Unlock();
    return true;
  }

  bool Find(uint64_t address, recording::Range* range);  // false also when the lock was not to be had
  bool Covers(uint64_t address) {
    recording::Range range;
    return Find(address, &range);
  }

  // Private, anonymous and not PROT_NONE.
  uint64_t CommittedBytes();

 private:
  bool Lock();
  void Unlock();
  uint64_t LowerBound(uint64_t address) const;  // first entry with end > address
  bool SplitAt(uint64_t address);
  bool InsertAt(uint64_t index, const recording::Range& range);
  void EraseAt(uint64_t first, uint64_t last);
  // With `taken`, in there; without, told.
  bool RemoveLocked(uint64_t start, uint64_t end, TakenRanges* taken);
  void MergeAround(uint64_t start, uint64_t end);

  RecordingFile* file_ = nullptr;
  AppendTable<recording::Range> ranges_;
  RangeFreed freed_ = nullptr;
};

}  // namespace nodeleak::preload
