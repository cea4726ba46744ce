#include "memory/malloc_heaps.h"

namespace nodeleak::memory {
namespace {

// malloc/arena.c: HEAP_MAX_SIZE is twice DEFAULT_MMAP_THRESHOLD_MAX, and heaps are aligned to it.
constexpr uint64_t kHeapBytes = 64ull << 20;
constexpr uint64_t kMostCandidates = 65536;

// malloc/arena.c, struct _heap_info; glibc 2.35 appends a page size.
struct HeapInfo {
  uint64_t arena, previous, size, protected_size;
};

// Where the first chunk may be: behind the heap's head (before and since glibc 2.35), and in an arena's first heap
// behind struct malloc_state (before and since 2.27, each with both heads).
constexpr uint32_t kAfterHead[] = {0x30, 0x20};
constexpr uint32_t kAfterArena[] = {0x8d0, 0x8c0, 0x8b0, 0x8a0};
constexpr uint32_t kAtStart[] = {0};

// malloc/malloc.c, struct malloc_chunk: the size's low bits are flags, and a chunk is in use when the next one says so.
constexpr uint64_t kPreviousInUse = 1, kMapped = 2, kFlags = 7;
constexpr uint64_t kSmallestChunk = 32, kChunkAlignment = 16;
constexpr uint64_t kMostFenceposts = 3;  // two, and what was left of a last chunk of 48 bytes

bool IsReadable(const System& system, uint64_t address) {
  char byte;
  return ReadMemory(system, address, &byte, 1);
}

// It may have grown since the kernel was asked where its area ends.
bool LooksLikeHeap(const System& system, uint64_t start, uint64_t area_end, HeapInfo* info) {
  if (!ReadMemory(system, start, info, sizeof *info)) return false;
  if (info->size < kPage || info->size > kHeapBytes || info->size > info->protected_size ||
      info->protected_size > kHeapBytes || info->protected_size % kPage != 0 ||
      (start + info->size > area_end && !IsReadable(system, start + info->size - 1))) {
    return false;
  }
  HeapInfo first = *info;
  const uint64_t first_heap = HeapOf(info->arena);
  if (first_heap == 0 || (first_heap != start && !ReadMemory(system, first_heap, &first, sizeof first))) return false;
  return first.arena == info->arena && info->arena - first_heap <= 0x40;
}

// A thread arena gives what is free at a heap's end back, and takes it again.
MallocHeap AsItIsNow(const System& system, MallocHeap heap) {
  HeapInfo info;
  if (heap.arena != 0 && ReadMemory(system, heap.start, &info, sizeof info) && info.arena == heap.arena &&
      info.size >= kPage && info.size <= kHeapBytes)
    heap.end = heap.start + info.size;
  return heap;
}

// Reads chunk sizes: pages with headers, which malloc has touched itself, and where one page follows on the other some
// more of them ahead, a system call for all.
class ChunkReader {
 public:
  static constexpr uint64_t kRoomPages = 16;

  ChunkReader(const System& system, uint64_t heap_end, void* room)
      : system_(system), heap_end_(heap_end), room_(static_cast<char*>(room)) {}

  bool SizeAt(uint64_t chunk, uint64_t* size) {
    const uint64_t address = chunk + sizeof(uint64_t);  // behind prev_size
    if (address - held_ >= held_bytes_ && !Fill(address & ~(kPage - 1))) return false;
    memcpy(size, room_ + (address - held_), sizeof *size);
    return true;
  }
  bool IsReadable(uint64_t address) const { return memory::IsReadable(system_, address); }

 private:
  bool Fill(uint64_t wanted) {
    const uint64_t ahead = wanted == held_ + held_bytes_ ? Smaller(held_bytes_ * 2, kRoomPages * kPage) : kPage;
    held_ = wanted;
    held_bytes_ = Smaller(ahead, Larger(heap_end_ - wanted, kPage));
    if (ReadMemory(system_, wanted, room_, held_bytes_)) return true;
    held_bytes_ = kPage;
    if (ReadMemory(system_, wanted, room_, kPage)) return true;
    held_bytes_ = 0;
    return false;
  }

  const System& system_;
  const uint64_t heap_end_;
  char* const room_;
  uint64_t held_ = 0, held_bytes_ = 0;
};

class Walker {
 public:
  Walker(const MallocHeap& heap, ChunkReader* reader, uint64_t* budget)
      : heap_(heap), reader_(reader), budget_(budget) {}

  HeapWalk From(uint64_t chunk) {
    HeapWalk walk = {};
    uint64_t size = 0;
    if (!Read(chunk, &size)) return walk;
    for (; *budget_ > 0; --*budget_) {
      const uint64_t bytes = size & ~kFlags;
      const uint64_t next = chunk + bytes;
      if (IsFencepost(chunk, bytes)) return Finished(walk, 0);
      if (const uint64_t behind = BehindFenceposts(chunk, bytes); behind != 0) {
        chunk = behind;
        walk.closed_end = chunk;
        if (!Read(chunk, &size)) break;
        continue;
      }
      if (bytes < kSmallestChunk || bytes % kChunkAlignment != 0 || (size & kMapped) != 0) break;
      if (next == heap_.end || HasGrownTo(next)) return Finished(walk, heap_.end - chunk);
      if (next > heap_.end) break;
      uint64_t next_size = 0;
      if (!Read(next, &next_size)) {
        if (HasShrunkTo(next)) return Finished(walk, bytes);
        break;
      }
      if ((next_size & kPreviousInUse) != 0) {
        walk.in_use_bytes += bytes;
      } else {
        walk.free_bytes += bytes;
        ++walk.free_chunks;
        if (bytes > walk.largest_free) walk.largest_free = bytes;
      }
      chunk = next;
      size = next_size;
    }
    walk.complete = false;
    return walk;
  }

 private:
  bool Read(uint64_t chunk, uint64_t* size) {
    return chunk + 2 * sizeof(uint64_t) <= heap_.end && reader_->SizeAt(chunk, size);
  }
  // sysmalloc closes a heap that is full, or a break that somebody else moved, with two chunks too small to be real.
  bool IsFencepost(uint64_t chunk, uint64_t bytes) const {
    return bytes < kSmallestChunk && heap_.end - chunk <= 4 * kChunkAlignment;
  }
  // Where the next region begins; 0: the chunk is no fencepost. The break has them, too, once it could not grow and
  // then could again.
  uint64_t BehindFenceposts(uint64_t chunk, uint64_t bytes) const {
    const uint64_t behind = (chunk + kMostFenceposts * kChunkAlignment) & ~(kPage - 1);
    const bool may_be = heap_.arena == 0 && bytes < kSmallestChunk;
    return may_be && chunk < behind && behind - chunk > kChunkAlignment ? behind : 0;
  }
  // While it is walked the program goes on; what came since the kernel was asked is not looked at.
  bool HasGrownTo(uint64_t end) const {
    return end > heap_.end && end - heap_.end <= kHeapBytes && !heap_.is_regions && reader_->IsReadable(end - 1);
  }
  // The break was given back to the kernel. Only the last chunk leads to where memory ends.
  bool HasShrunkTo(uint64_t end) const {
    return heap_.arena == 0 && !heap_.is_regions && end % kPage == 0 && !reader_->IsReadable(end);
  }
  static HeapWalk Finished(HeapWalk walk, uint64_t top) {
    walk.complete = true;
    walk.top_bytes = top;
    return walk;
  }

  const MallocHeap& heap_;
  ChunkReader* const reader_;
  uint64_t* const budget_;
};

template <size_t N>
HeapWalk WalkFromOneOf(const uint32_t (&offsets)[N], const MallocHeap& heap, ChunkReader* reader, uint64_t* budget) {
  HeapWalk walk = {};
  for (const uint32_t offset : offsets) {
    walk = Walker(heap, reader, budget).From(heap.start + offset);
    if (walk.complete) break;
  }
  return walk;
}

HeapWalk WalkOnce(const System& system, const MallocHeap& heap, uint64_t* budget) {
  constexpr uint64_t kRoom = ChunkReader::kRoomPages * kPage;
  void* room = system.map(kRoom);
  if (room == nullptr) return {};
  ChunkReader reader(system, heap.end, room);
  const HeapWalk walk = heap.arena == 0 ? WalkFromOneOf(kAtStart, heap, &reader, budget)
                        : heap.is_first ? WalkFromOneOf(kAfterArena, heap, &reader, budget)
                                        : WalkFromOneOf(kAfterHead, heap, &reader, budget);
  system.unmap(room, kRoom);
  return walk;
}

}  // namespace

uint64_t HeapOf(uint64_t address) { return address & ~(kHeapBytes - 1); }

// Where the break cannot grow, sysmalloc maps regions, each below the one before, and the kernel joins them to one
// area. Nothing but malloc's chunks leads from the start of an area to fenceposts at the end of a page.
MallocHeap RegionsFrom(const System& system, uint64_t start, uint64_t end, uint64_t* budget) {
  uint64_t head[2];  // of the first chunk
  if (!ReadMemory(system, start, head, sizeof head) || (head[1] & kFlags) != kPreviousInUse ||
      head[1] < kSmallestChunk || head[1] >= end - start) {
    return {};
  }
  const HeapWalk walk = WalkOnce(system, {start, end, 0, true, true}, budget);
  return {start, walk.complete && walk.closed_end != 0 ? end : walk.closed_end, 0, true, true};
}

bool FindMallocHeaps(const System& system, const PageArray<Area>& areas, const Residency& residency,
                     PageArray<MallocHeap>* heaps) {
  uint64_t candidates = 0;
  uint64_t budget = kWalkBudget;
  for (const Area& area : areas) {
    if (area.kind == AreaKind::kBreak && !heaps->Append({area.start, area.end, 0, true})) return false;
    if (area.kind != AreaKind::kAnonymous || area.resident == 0 || area.writable == 0) continue;
    for (uint64_t at = HeapOf(area.start + kHeapBytes - 1); at < area.end; at += kHeapBytes) {
      HeapInfo info;
      if (!residency.HasPage(area, at)) continue;
      if (++candidates > kMostCandidates || !LooksLikeHeap(system, at, area.end, &info)) continue;
      if (!heaps->Append({at, Smaller(at + info.size, area.end), info.arena, HeapOf(info.arena) == at})) return false;
    }
    if (!residency.HasPage(area, area.start)) continue;
    const MallocHeap regions = RegionsFrom(system, area.start, area.end, &budget);
    if (regions.end != 0 && !heaps->Append(regions)) return false;
  }
  return true;
}

HeapWalk WalkHeap(const System& system, const MallocHeap& heap, uint64_t* budget) {
  constexpr int kTries = 5;  // a chunk that another thread joins with the one before leads a walk astray
  HeapWalk walk = {};
  for (int i = 0; i < kTries && !walk.complete; ++i) walk = WalkOnce(system, AsItIsNow(system, heap), budget);
  return walk;
}

}  // namespace nodeleak::memory
