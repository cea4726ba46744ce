#include "memory/picture.h"

namespace nodeleak::memory {
namespace {

using recording::MemoryArena;
using recording::MemoryPart;
using recording::MemoryUse;

constexpr uint64_t kMappedBlockHead = 16;
constexpr uint64_t kSmallestMapped = 128 * 1024;  // M_MMAP_THRESHOLD, which only grows

// malloc/malloc.c, checked_request2size: what a block of a heap takes beyond what was asked for.
uint64_t ChunkOverhead(uint64_t bytes) {
  constexpr uint64_t kSmallest = 32, kHead = 8, kAlign = 15;
  return Larger(kSmallest, (bytes + kHead + kAlign) & ~kAlign) - bytes;
}

}  // namespace

PictureTaker::PictureTaker(const System& system, uint32_t stacks)
    : system_(system),
      stacks_(stacks),
      residency_(system),
      areas_(system),
      claims_(system),
      heaps_(system),
      segments_(system),
      uses_(system),
      arenas_(system) {}

void PictureTaker::AddClaim(const Claim& claim) {
  if (claim.start < claim.end && !claims_.Append(claim)) MarkCut();
}

recording::MemoryUse& PictureTaker::UseOf(uint32_t stack, bool mapping) {
  const uint32_t known = stack < stacks_ ? stack : 0;
  MemoryUse& use = uses_[2 * static_cast<size_t>(known) + (mapping ? 1 : 0)];
  use.stack = known;
  use.flags = mapping ? recording::kUseMapping : 0u;
  return use;
}

void PictureTaker::Add(MemoryPart part, uint64_t mapped, uint64_t resident) {
  Part(part).mapped += mapped;
  Part(part).resident += resident;
}

bool PictureTaker::ReadKernel() {
  if (!uses_.Resize(2 * static_cast<size_t>(stacks_ == 0 ? 1 : stacks_)) || !ReadAreas(system_, &areas_)) return false;
  const StatusNumbers status = ReadStatus(system_);
  picture_.page_table_bytes = status.page_tables;
  picture_.swapped_bytes = status.swapped;
  residency_.Read(system_, &areas_);
  if (residency_.approximate()) picture_.flags |= recording::kPictureApproximate;
  FindArenas();
  ClaimReservations();
  return MakeSegments();
}

// The arena's index; made when it is not there. kNoIndex: no memory.
uint32_t PictureTaker::ArenaOf(uint64_t address, uint32_t flags) {
  for (uint32_t i = 0; i < arenas_.size(); ++i) {
    if (arenas_[i].address == address &&
        (arenas_[i].flags & recording::kArenaMappedBlocks) == (flags & recording::kArenaMappedBlocks)) {
      return i;
    }
  }
  MemoryArena arena = {};
  arena.address = address;
  arena.flags = flags;
  return arenas_.Append(arena) ? static_cast<uint32_t>(arenas_.size() - 1) : recording::kNoIndex;
}

void PictureTaker::FindArenas() {
  if ((picture_.flags & recording::kPictureOtherAllocator) == 0) FindMallocHeaps(system_, areas_, residency_, &heaps_);
  for (const MallocHeap& heap : heaps_) {
    const uint32_t index = ArenaOf(heap.arena, heap.arena == 0 ? recording::kArenaMain : 0u);
    if (index == recording::kNoIndex) return MarkCut();
    ++arenas_[index].heaps;
    AddClaim({heap.start, heap.end, Owner::kHeap, index});
  }
}

// Reserved address space has no pages and needs no segment.
void PictureTaker::ClaimReservations() {
  for (const Claim& claim : claims_) {
    if (claim.owner == Owner::kReserved) {
      MemoryUse& use = UseOf(claim.tag, true);
      use.reserved += claim.end - claim.start;
    }
  }
  SortInPlace(claims_.begin(), claims_.size(), [](const Claim& left, const Claim& right) {
    return left.start != right.start ? left.start < right.start : left.owner < right.owner;
  });
}

bool PictureTaker::MakeSegments() {
  uint64_t next_claim = 0;
  for (uint64_t i = 0; i < areas_.size(); ++i) {
    const Area& area = areas_[i];
    picture_.rss_bytes += area.resident;
    if (area.kind == AreaKind::kAnonymous || area.kind == AreaKind::kBreak) {
      CutArea(i, &next_claim);
    } else {
      CountArea(area);
    }
  }
  return true;
}

// The kernel joins malloc's regions also to what others have mapped below them. Where those end that begin at `start`.
uint64_t PictureTaker::ClaimRegions(const Area& area, uint64_t start, uint64_t end) {
  if (area.writable == 0 || (picture_.flags & recording::kPictureOtherAllocator) != 0 ||
      !residency_.HasPage(area, start)) {
    return start;
  }
  const MallocHeap regions = RegionsFrom(system_, start, end, &region_budget_);
  const uint32_t index = regions.end == 0 ? recording::kNoIndex : ArenaOf(0, recording::kArenaMain);
  if (index == recording::kNoIndex || !heaps_.Append(regions)) return start;
  ++arenas_[index].heaps;
  return regions.end;
}

// Claims are sorted by their start; one may reach over several areas.
void PictureTaker::CutArea(uint64_t index, uint64_t* next_claim) {
  const Area& area = areas_[index];
  const bool behind_file =
      index > 0 && areas_[index - 1].kind == AreaKind::kFile && areas_[index - 1].end == area.start;
  const auto append = [&](uint64_t start, uint64_t end, Kind kind, uint32_t tag) {
    if (start < end && !segments_.Append({start, end, kind, tag, index, 0, 0, 0})) MarkCut();
  };
  const auto append_unclaimed = [&](uint64_t start, uint64_t end) {
    if (start == area.start) return append(start, end, behind_file ? Kind::kBehindFile : Kind::kUnclaimed, 0);
    const uint64_t regions_end = start < end ? ClaimRegions(area, start, end) : start;
    if (regions_end != start) append(start, regions_end, Kind::kHeap, ArenaOf(0, recording::kArenaMain));
    append(regions_end, end, Kind::kUnclaimed, 0);
  };
  uint64_t at = area.start;
  while (*next_claim < claims_.size() && claims_[*next_claim].end <= area.start) ++*next_claim;
  for (uint64_t i = *next_claim; i < claims_.size() && claims_[i].start < area.end; ++i) {
    const Claim& claim = claims_[i];
    if (claim.end <= at) continue;
    const uint64_t start = Larger(claim.start, at), end = Smaller(claim.end, area.end);
    append_unclaimed(at, start);
    append(start, end, static_cast<Kind>(claim.owner), claim.tag);
    at = end;
  }
  append_unclaimed(at, area.end);
}

void PictureTaker::CountArea(const Area& area) {
  const uint64_t bytes = area.end - area.start;
  switch (area.kind) {
    case AreaKind::kMainStack:
      return Add(MemoryPart::kThreadStacks, bytes, area.resident);
    case AreaKind::kShared:
      return Add(MemoryPart::kShared, bytes, area.resident);
    default:
      break;
  }
  for (const Claim& claim : claims_) {  // few areas are files, and few claims are ours
    if (claim.owner == Owner::kNodeleak && claim.start <= area.start && area.end <= claim.end)
      return Add(MemoryPart::kNodeleak, bytes, area.resident);
  }
  Add(MemoryPart::kFiles, bytes, area.resident);
}

PictureTaker::Segment* PictureTaker::FindSegment(uint64_t address) {
  if (last_ != nullptr && address >= last_->start && address < last_->end) return last_;
  size_t low = 0, high = segments_.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (segments_[middle].end <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == segments_.size() || segments_[low].start > address) return nullptr;
  last_ = &segments_[low];
  return last_;
}

void PictureTaker::AddBlock(const LiveBlock& block) {
  MemoryUse& use = UseOf(block.stack, false);
  ++use.count;
  use.bytes += block.bytes;
  const uint64_t end = block.address + block.bytes;
  Segment* first = FindSegment(block.address);
  for (Segment* segment = first; segment != segments_.end() && segment != nullptr && segment->start < end; ++segment) {
    const uint64_t from = Larger(block.address, segment->start);
    const uint64_t resident = residency_.Bytes(areas_[segment->area], from, Larger(from, Smaller(end, segment->end)));
    use.resident += resident;
    segment->block_resident += resident;
  }
  if (first == nullptr) return;
  ++first->blocks;
  first->overhead += ChunkOverhead(block.bytes);
  if (block.bytes < kSmallestMapped) ++first->small_blocks;
}

// A thread arena that has taken more of its heap since its end was read.
MemoryArena* PictureTaker::ArenaThatHasGrownTo(uint64_t address) {
  for (const MallocHeap& heap : heaps_)
    if (heap.arena != 0 && heap.start == HeapOf(address)) return &arenas_[ArenaOf(heap.arena, 0)];
  return nullptr;
}

void PictureTaker::CountInArena(const Segment& segment, uint64_t resident, MemoryArena* arena) {
  const uint64_t blocks = Smaller(segment.block_resident, resident);
  const uint64_t overhead = Smaller(segment.overhead, resident - blocks);
  Add(MemoryPart::kBlockOverhead, overhead, overhead);
  const uint64_t free = resident - blocks - overhead;
  Add(MemoryPart::kMallocFree, free, free);
  arena->mapped += segment.end - segment.start;
  arena->resident += resident;
  arena->block_bytes += blocks + overhead;
}

void PictureTaker::CountSegment(const Segment& segment) {
  const uint64_t bytes = segment.end - segment.start;
  const uint64_t resident = residency_.Bytes(areas_[segment.area], segment.start, segment.end);
  const uint64_t left = resident - Smaller(segment.block_resident, resident);
  Add(MemoryPart::kBlocks, segment.block_resident, segment.block_resident);
  if (segment.kind == Kind::kHeap) return CountInArena(segment, resident, &arenas_[segment.tag]);
  if (segment.kind == Kind::kMapping || segment.kind == Kind::kReserved) {
    MemoryUse& use = UseOf(segment.tag, true);
    use.resident += left;  // also where access was taken away again: the pages stay
    if (segment.kind == Kind::kReserved) return Add(MemoryPart::kMappings, 0, left);
    ++use.count;
    use.bytes += bytes;
    return Add(MemoryPart::kMappings, bytes, left);
  }
  const bool other_allocator = (picture_.flags & recording::kPictureOtherAllocator) != 0;
  if (segment.blocks != 0 && (other_allocator || segment.small_blocks != 0)) {
    // glibc goes on in mappings where the break cannot grow: V8's code range may be in its way. They are the main
    // arena's.
    if (MemoryArena* grown = ArenaThatHasGrownTo(segment.start); grown != nullptr)
      return CountInArena(segment, resident, grown);
    const uint32_t index = ArenaOf(0, other_allocator ? recording::kArenaMappedBlocks : recording::kArenaMain);
    if (index == recording::kNoIndex) return Add(MemoryPart::kUnexplained, left, left);
    if (!other_allocator && !heaps_.Append({segment.start, segment.end, 0, true, true})) MarkCut();
    ++arenas_[index].heaps;
    return CountInArena(segment, resident, &arenas_[index]);
  }
  if (segment.blocks != 0) {  // each a mapping of its own: a head, and the end of the last page
    const uint64_t overhead = Smaller(left, segment.blocks * (kMappedBlockHead + kPage));
    Add(MemoryPart::kBlockOverhead, overhead, overhead);
    return Add(MemoryPart::kUnexplained, left - overhead, left - overhead);
  }
  const MemoryPart part = segment.kind == Kind::kNodeleak      ? MemoryPart::kNodeleak
                          : segment.kind == Kind::kThreadStack ? MemoryPart::kThreadStacks
                          : segment.kind == Kind::kBehindFile  ? MemoryPart::kFiles  // its zeroed data
                                                               : MemoryPart::kUnexplained;
  Add(part, bytes, left);
}

void PictureTaker::WalkArenas() {
  uint64_t budget = kWalkBudget;
  for (MemoryArena& arena : arenas_) arena.flags |= recording::kArenaWalked;
  for (const MallocHeap& heap : heaps_) {
    const HeapWalk walk = WalkHeap(system_, heap, &budget);
    for (MemoryArena& arena : arenas_) {
      if (arena.address != heap.arena) continue;
      if (!walk.complete) arena.flags &= ~static_cast<uint32_t>(recording::kArenaWalked);
      arena.free_bytes += walk.free_bytes;
      arena.free_chunks += walk.free_chunks;
      arena.largest_free_bytes = Larger(arena.largest_free_bytes, walk.largest_free);
      arena.top_bytes += walk.top_bytes;
      arena.in_use_bytes += walk.in_use_bytes;
      break;
    }
  }
}

void PictureTaker::Finish(bool walk) {
  for (const Segment& segment : segments_) CountSegment(segment);
  uint64_t asked_for = 0;
  for (size_t i = 0; i < uses_.size(); i += 2) asked_for += uses_[i].bytes;
  Part(MemoryPart::kBlocks).mapped = asked_for;
  if (walk) WalkArenas();
}

}  // namespace nodeleak::memory
