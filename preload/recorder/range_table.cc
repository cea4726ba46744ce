#include "preload/recorder/range_table.h"

#include <sys/mman.h>

namespace nodeleak::preload {

using recording::Range;

void RangeTable::Attach(RecordingFile* file, RangeFreed freed) {
  file_ = file;
  freed_ = freed;
  ranges_.Attach(file, recording::TableId::kRanges, 512);
}

bool RangeTable::Lock() {
  uint32_t& sequence = file_->header()->ranges_sequence;
  Patience patience;
  for (;;) {
    uint32_t seen = __atomic_load_n(&sequence, __ATOMIC_RELAXED);
    if ((seen & 1) == 0 &&
        __atomic_compare_exchange_n(&sequence, &seen, seen + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
      __atomic_thread_fence(__ATOMIC_RELEASE);
      return true;
    }
    if (!patience.WaitMore(seen)) return false;
  }
}

void RangeTable::Unlock() {
  uint32_t& sequence = file_->header()->ranges_sequence;
  __atomic_store_n(&sequence, __atomic_load_n(&sequence, __ATOMIC_RELAXED) + 1, __ATOMIC_RELEASE);
}

uint64_t RangeTable::LowerBound(uint64_t address) const {
  uint64_t low = 0, high = ranges_.count();
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    if (ranges_[middle].end > address) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

bool RangeTable::InsertAt(uint64_t index, const Range& range) {
  const uint64_t count = ranges_.count();
  if (!ranges_.Reserve(count + 1)) return false;
  for (uint64_t i = count; i > index; --i) ranges_[i] = ranges_[i - 1];
  ranges_[index] = range;
  ranges_.Publish(count + 1);
  return true;
}

void RangeTable::EraseAt(uint64_t first, uint64_t last) {
  const uint64_t count = ranges_.count();
  if (first == last) return;
  for (uint64_t i = last; i < count; ++i) ranges_[first + i - last] = ranges_[i];
  ranges_.Publish(count - (last - first));
}

// Afterwards no range straddles `address`.
bool RangeTable::SplitAt(uint64_t address) {
  const uint64_t index = LowerBound(address);
  if (index == ranges_.count() || ranges_[index].start >= address) return true;
  Range right = ranges_[index];
  right.start = address;
  if (!InsertAt(index + 1, right)) return false;
  ranges_[index].end = address;
  return true;
}

bool RangeTable::RemoveLocked(uint64_t start, uint64_t end, TakenRanges* taken) {
  if (!SplitAt(start) || !SplitAt(end)) return false;
  const uint64_t first = LowerBound(start);
  uint64_t last = first;
  for (; last < ranges_.count() && ranges_[last].start < end; ++last) {
    if (taken != nullptr && taken->count < TakenRanges::kMost) {
      taken->ranges[taken->count++] = ranges_[last];
    } else {
      freed_(ranges_[last]);
    }
  }
  EraseAt(first, last);
  return true;
}

bool IsBornWith(const Range& left, const Range& right) {
  return left.birth_tick == right.birth_tick && left.birth_gc == right.birth_gc;
}

// Pieces of one reservation, as good as at the same time: the later, the longer that may be, so there are never many.
bool AreCommittedTogether(const Range& left, const Range& right) {
  constexpr uint32_t kShareOfTheRun = 64;
  return (left.flags & recording::kRangeCommitted) != 0 && left.birth_tick <= right.birth_tick &&
         right.birth_tick - left.birth_tick < right.birth_tick / kShareOfTheRun;
}

// Neighbours that are one mapping in all but name become one entry again: protections that go back and forth must not
// pile up.
void RangeTable::MergeAround(uint64_t start, uint64_t end) {
  uint64_t index = LowerBound(start > 0 ? start - 1 : 0);
  while (index + 1 < ranges_.count() && ranges_[index].start <= end) {
    Range& left = ranges_[index];
    const Range& right = ranges_[index + 1];
    const bool same = left.end == right.start && left.stack == right.stack && left.flags == right.flags &&
                      left.protection == right.protection;
    if (same && (left.protection == PROT_NONE || IsBornWith(left, right) || AreCommittedTogether(left, right))) {
      left.end = right.end;
      EraseAt(index + 1, index + 2);
    } else {
      ++index;
    }
  }
}

bool RangeTable::Insert(const Range& range) {
  if (!Lock()) return false;
  const bool done = RemoveLocked(range.start, range.end, nullptr) && InsertAt(LowerBound(range.start), range);
  Unlock();
  return done;
}

bool RangeTable::Take(uint64_t start, uint64_t end, TakenRanges* taken) {
  taken->count = 0;
  taken->start = start;
  taken->end = end;
  if (!Lock()) return false;
  const bool done = RemoveLocked(start, end, taken);
  Unlock();
  return done;
}

bool RangeTable::PutBack(const TakenRanges& taken) {
  bool done = true;
  for (uint32_t i = 0; i < taken.count; ++i) done = Insert(taken.ranges[i]) && done;
  return done;
}

void RangeTable::Forget(const TakenRanges& taken) {
  for (uint32_t i = 0; i < taken.count; ++i) freed_(taken.ranges[i]);
}

bool RangeTable::PutAt(const TakenRanges& taken, uint64_t new_start, uint64_t new_bytes, Range* added) {
  *added = {};
  if (!Lock()) return false;
  const uint64_t new_end = new_start + new_bytes;
  // Since Linux 6.17 several mappings may be moved at once. What lies where a gap between them comes to lie stays.
  const bool whole = taken.count != 0 && taken.end - taken.start == new_bytes;
  bool done = whole || RemoveLocked(new_start, new_end, nullptr);
  for (uint32_t i = 0; i < taken.count && done; ++i) {
    Range moved = taken.ranges[i];
    moved.start += new_start - taken.start;
    moved.end += new_start - taken.start;
    const uint64_t whole_end = moved.end;
    if (taken.ranges[i].end == taken.end || moved.end > new_end) moved.end = new_end;
    Range cut = moved;
    cut.start = moved.start < new_end ? new_end : moved.start;
    cut.end = whole_end;
    if (cut.start < cut.end) freed_(cut);
    if (moved.start >= new_end) continue;
    done = RemoveLocked(moved.start, moved.end, nullptr) && InsertAt(LowerBound(moved.start), moved);
    if (moved.end <= whole_end) continue;
    *added = moved;
    added->start = whole_end;
  }
  Unlock();
  return done;
}

bool RangeTable::Protect(uint64_t start, uint64_t end, uint32_t protection, uint32_t tick, uint32_t gc) {
  if (!Lock()) return false;
  const bool done = SplitAt(start) && SplitAt(end);
  if (done) {
    for (uint64_t i = LowerBound(start); i < ranges_.count() && ranges_[i].start < end; ++i) {
      Range& range = ranges_[i];
      if (range.protection == PROT_NONE && protection != PROT_NONE) {
        range.birth_tick = tick;
        range.birth_gc = gc;
        range.flags |= recording::kRangeCommitted;
      }
      if (protection == PROT_NONE) range.flags &= ~uint32_t{recording::kRangeCommitted};
      range.protection = protection;
    }
    MergeAround(start, end);
  }
  Unlock();
  return done;
}

bool RangeTable::Find(uint64_t address, Range* range) {
  if (!Lock()) return false;
  const uint64_t index = LowerBound(address);
  const bool found = index < ranges_.count() && ranges_[index].start <= address;
  if (found) *range = ranges_[index];
  Unlock();
  return found;
}

uint64_t RangeTable::CommittedBytes() {
  if (!Lock()) return 0;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < ranges_.count(); ++i) {
    const Range& range = ranges_[i];
    if (range.protection != PROT_NONE && (range.flags & (recording::kRangeFile | recording::kRangeShared)) == 0) {
      bytes += range.end - range.start;
    }
  }
  Unlock();
  return bytes;
}

}  // namespace nodeleak::preload
