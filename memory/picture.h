// Both worlds. A memory picture: every resident byte of a process is put under one recording::MemoryPart, from what the
// kernel shows (areas, residency) and what the recording knows (blocks, mappings, stacks of threads, our own memory).
//
// Takes no lock of the process's and waits for nothing. What changes while it is taken may be counted at the wrong
// place; the sum is the RSS all the same.
#pragma once

#include <stdint.h>

#include "memory/malloc_heaps.h"
#include "memory/residency.h"
#include "recording/layout.h"

namespace nodeleak::memory {

// Whose an address range is. Where two overlap, the one that begins first keeps its part; of two that begin together
// the higher row.
enum class Owner : uint32_t { kNodeleak, kHeap, kMapping, kReserved, kThreadStack };
struct Claim {
  uint64_t start, end;
  Owner owner;
  uint32_t tag;  // kMapping, kReserved: Stack; kHeap: index of the arena
};

// An outstanding malloc block.
struct LiveBlock {
  uint64_t address, bytes;
  uint32_t stack;
};

class PictureTaker {
 public:
  // Stack indices at or beyond `stacks` count as stack 0.
  PictureTaker(const System& system, uint32_t stacks);

  // First what the recording knows...
  void AddClaim(const Claim& claim);
  void SetOtherAllocator() { picture_.flags |= recording::kPictureOtherAllocator; }
  // ...then what the kernel knows (false: it shows nothing), then the blocks, and the sums.
  bool ReadKernel();
  void AddBlock(const LiveBlock& block);
  // `walk`: also look into malloc's free memory; reads the process's memory.
  void Finish(bool walk);
  void MarkCut() { picture_.flags |= recording::kPictureCut; }

  // Without first_use, first_arena, time and moment. Uses that are 0 are to be skipped.
  const recording::MemoryPicture& picture() const { return picture_; }
  const PageArray<recording::MemoryUse>& uses() const { return uses_; }  // of a stack: 2 i blocks, 2 i + 1 mappings
  const PageArray<recording::MemoryArena>& arenas() const { return arenas_; }
  static bool IsEmpty(const recording::MemoryUse& use) { return use.count == 0 && use.reserved == 0; }

 private:
  // A piece of an area that belongs to one owner, or to nobody that we know.
  enum class Kind : uint32_t { kNodeleak, kHeap, kMapping, kReserved, kThreadStack, kUnclaimed, kBehindFile };
  struct Segment {
    uint64_t start, end;
    Kind kind;
    uint32_t tag;
    uint64_t area;
    uint64_t block_resident, blocks, overhead;
    uint64_t small_blocks;  // too small to be mappings of their own
  };

  recording::MemoryUse& UseOf(uint32_t stack, bool mapping);
  uint32_t ArenaOf(uint64_t address, uint32_t flags);
  void FindArenas();
  void ClaimReservations();
  bool MakeSegments();
  uint64_t ClaimRegions(const Area& area, uint64_t start, uint64_t end);
  void CutArea(uint64_t area, uint64_t* next_claim);
  Segment* FindSegment(uint64_t address);
  void CountArea(const Area& area);
  void CountSegment(const Segment& segment);
  recording::MemoryArena* ArenaThatHasGrownTo(uint64_t address);
  void CountInArena(const Segment& segment, uint64_t resident, recording::MemoryArena* arena);
  void WalkArenas();
  recording::MemoryAmount& Part(recording::MemoryPart part) { return picture_.parts[static_cast<uint32_t>(part)]; }
  void Add(recording::MemoryPart part, uint64_t mapped, uint64_t resident);

  const System& system_;
  const uint32_t stacks_;
  recording::MemoryPicture picture_ = {};
  Residency residency_;
  PageArray<Area> areas_;
  PageArray<Claim> claims_;
  PageArray<MallocHeap> heaps_;
  PageArray<Segment> segments_;
  PageArray<recording::MemoryUse> uses_;
  PageArray<recording::MemoryArena> arenas_;
  Segment* last_ = nullptr;
  uint64_t region_budget_ = kWalkBudget;
};

}  // namespace nodeleak::memory
