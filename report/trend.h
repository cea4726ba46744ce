// Outside node. Leaks that no survival curve shows, because the older blocks go: one block that is replaced by ever
// larger ones, and a queue that fills faster than it empties. Pure arithmetic.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace nodeleak::report {

// Of equal parts of a group's period.
inline constexpr size_t kTrendParts = 8;

// What was alive at a checkpoint, garbage or not.
struct Alive {
  double at = 0;  // when, as share of all that was allocated in the period
  double bytes = 0;
};

struct Trend {
  bool is_measured = false;                         // every part has a checkpoint and allocations
  std::array<double, kTrendParts> mean_bytes = {};  // of the blocks that were allocated in it
  std::array<double, kTrendParts> blocks = {};      // that were allocated in it
  std::vector<Alive> alive;                         // in the order of time
  double kept_blocks = 0, kept_bytes = 0;           // at the end of the period
  double largest_bytes = 0;                         // of the kept blocks

  // Of what only ever gets more, no more than this was kept at that moment.
  double AtMost(double at) const;
};

// One to three blocks, the largest larger than the one that it replaced, and so on, steadily: no step down before the
// last quarter. Optimized code may keep an early one.
bool IsGrowingBlock(const Trend& trend);

// Many are kept, and with everything that comes a share more than can have been kept before, though it comes no faster.
bool IsGrowingQueue(const Trend& trend);

}  // namespace nodeleak::report
