// Both worlds. The heaps of glibc's malloc, found and read from outside of it: no lock is taken and nothing is called,
// so a thread that sits in malloc (or died there) cannot hold us up. What is read may change meanwhile: every step is
// checked, a walk that does not come out at the end of the heap is made again, and the last of some counts as not made.
#pragma once

#include <stdint.h>

#include "memory/areas.h"
#include "memory/residency.h"

namespace nodeleak::memory {

struct MallocHeap {
  uint64_t start, end;
  uint64_t arena;  // address of the arena's struct; 0: the main arena
  bool is_first;   // holds the arena's struct itself
  // The main arena's where the break could not grow: mappings of sysmalloc, one beside another, each closed.
  bool is_regions = false;
};

inline constexpr uint64_t kWalkBudget = 20'000'000;  // chunks: about a second

// Where the heap of a thread arena begins that would hold the address.
uint64_t HeapOf(uint64_t address);

// The program break, every heap of a thread arena (they begin at multiples of 64 MiB), and regions of the main arena at
// the start of an area. Looks only where pages are in memory: reading another would give the process one.
bool FindMallocHeaps(const System& system, const PageArray<Area>& areas, const Residency& residency,
                     PageArray<MallocHeap>* heaps);

// Regions of the main arena that begin at `start`; an end of 0: there are none. `budget`: see WalkHeap.
MallocHeap RegionsFrom(const System& system, uint64_t start, uint64_t end, uint64_t* budget);

struct HeapWalk {
  bool complete;
  uint64_t closed_end;  // behind the last region that fenceposts close; 0: none
  uint64_t free_bytes, free_chunks, largest_free, top_bytes, in_use_bytes;
};
// `budget`: chunks that may be looked at; what was used is taken off.
HeapWalk WalkHeap(const System& system, const MallocHeap& heap, uint64_t* budget);

}  // namespace nodeleak::memory
