// Outside node. Leaks that no survival curve shows, because the older blocks go: one block that is replaced by ever
// larger ones, steadily or by doubling, and a queue that fills faster than it empties. Pure arithmetic.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace nodeleak::report {

// Of equal parts of a group's period.
inline constexpr size_t kTrendParts = 8;
inline constexpr double kMostGrowingBlocks = 3;  // of those that replace one another, at the end

// What was alive at a checkpoint, garbage or not.
struct Alive {
  double at = 0;  // when, as share of all that was allocated in the period
  double bytes = 0;
};

// What a checkpoint found new.
struct Step {
  double seconds = 0;  // since the group's first allocation
  double blocks = 0, mean_bytes = 0;
};

// Two blocks between the same checkpoints, of which the second must be larger by the same factor as the first was, are
// made two steps.
void AddStep(const Step& step, std::vector<Step>* steps);

struct Trend {
  bool is_measured = false;                         // every part has a checkpoint and allocations
  std::array<double, kTrendParts> mean_bytes = {};  // of the blocks that were allocated in it
  std::array<double, kTrendParts> blocks = {};      // that were allocated in it
  std::vector<Alive> alive;                         // in the order of time
  double kept_blocks = 0, kept_bytes = 0;           // at the end of the period
  double largest_bytes = 0;                         // of the kept blocks
  std::vector<Step> steps;                          // of the whole run, in the order of time

  // Of what only ever gets more, no more than this was kept at that moment.
  double AtMost(double at) const;
};

// One to three blocks, the largest larger than the one that it replaced, and so on, steadily: no step down before the
// last quarter. Optimized code may keep an early one.
bool IsGrowingBlock(const Trend& trend);

// The last few blocks came one by one, each about twice the one before and after about twice the time, the last of them
// not long ago: an array that doubles when it is full, and is filled at an even rate. `seconds`: the group's age.
bool IsDoublingBlock(const Trend& trend, double seconds);
inline constexpr size_t kDoublings = 4;  // steps that are looked at

// Many are kept, and with everything that comes a share more than can have been kept before, though it comes no faster.
bool IsGrowingQueue(const Trend& trend);

}  // namespace nodeleak::report
