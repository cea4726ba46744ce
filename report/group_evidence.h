// Outside node. Gathers what a verdict needs: birth times and GC counts of what is outstanding, and from the
// checkpoints how much was allocated when.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "recording/recording.h"
#include "report/grouping.h"
#include "report/verdict.h"

namespace nodeleak::report {

// What is the same for all groups of a recording.
class Timebase {
 public:
  Timebase(const recording::Recording& recording, const std::vector<ClassifiedUse>& uses);

  double run_seconds() const { return run_seconds_; }
  // The last allocation that application code caused: later silence is not evidence that a leak has stopped.
  double active_until_seconds() const { return active_until_seconds_; }
  bool has_checkpoints() const { return !checkpoint_seconds_.empty(); }

  // Blocks that `stack` had allocated by `seconds`, between checkpoints by straight lines.
  double AllocatedBy(uint32_t stack, double seconds) const;

 private:
  struct Point {
    double seconds, blocks;
  };
  const recording::Recording& recording_;
  std::map<uint32_t, std::vector<Point>> curves_;
  std::vector<double> checkpoint_seconds_;
  double run_seconds_ = 0, active_until_seconds_ = 0;
};

Evidence CollectEvidence(const recording::Recording& recording, const Timebase& timebase,
                         const std::vector<const ClassifiedUse*>& members);

inline double SecondsOfTick(uint32_t tick) {
  return static_cast<double>(tick) * static_cast<double>(recording::kTickNanoseconds) / 1e9;
}

}  // namespace nodeleak::report
