// Outside node. A leak that no survival curve shows, because the older blocks go: one block that is replaced by ever
// larger ones. Pure arithmetic.
#pragma once

#include <array>
#include <cstddef>

namespace nodeleak::report {

// Of equal parts of a group's period.
inline constexpr size_t kTrendParts = 8;

struct Trend {
  bool is_measured = false;                         // every part has a checkpoint and allocations
  std::array<double, kTrendParts> mean_bytes = {};  // of the blocks that were allocated in it
  double kept_blocks = 0, kept_bytes = 0;           // at the end of the period
};

// One to three blocks, each larger than the one that it replaced, steadily: no step down before the last quarter.
bool IsGrowingBlock(const Trend& trend);

}  // namespace nodeleak::report
