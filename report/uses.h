// Outside node. A use: the outstanding memory of one stack that was asked for in one way. Groups are made of uses.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "recording/recording.h"
#include "report/classify.h"

namespace nodeleak::report {

struct Birth {
  uint32_t tick = 0;
  uint32_t gc = 0;
  uint64_t bytes = 0;   // of all blocks that it stands for
  uint64_t blocks = 1;  // more than one: a sample
};

struct Use {
  uint32_t stack = 0;
  Source source = Source::kBlock;
  uint64_t live_bytes = 0, live_blocks = 0;        // estimates when allocations were sampled
  double variance = 0;                             // of live_bytes, in bytes squared
  uint64_t reserved_bytes = 0;                     // mapped without access
  uint64_t garbage_bytes = 0, garbage_blocks = 0;  // freed by the full GC (AddFreed)
  uint64_t pending_bytes = 0, pending_blocks = 0;  // freed by finalizers after it
  bool owns_counters = false;                      // the stack's totals of allocations count here
  std::vector<Birth> births;                       // of what is outstanding
};

// Of a sum of sampled blocks with this variance: 95 % of such sums are within so many bytes of the truth.
uint64_t SamplingError(double variance);

// Mappings of `bytes` or more go from live to reserved: they cannot be in use as a whole.
void SetAsideMappings(uint64_t bytes, Use* use);

// Uses of all stacks that ever allocated, in the order of their stacks.
std::vector<Use> CollectUses(const recording::Recording& recording);

}  // namespace nodeleak::report
