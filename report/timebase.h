// Outside node. What is the same for all groups of a recording when it is about time: how long it ran, when the program
// was busy, and how much each stack had allocated by when.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "recording/recording.h"

namespace nodeleak::report {

inline double SecondsOfTick(uint32_t tick) {
  return static_cast<double>(tick) * static_cast<double>(recording::kTickNanoseconds) / 1e9;
}
inline double SecondsOf(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }
inline constexpr double kTickSeconds = static_cast<double>(recording::kTickNanoseconds) / 1e9;

// Whether the program went on working, by the polls of its event loops.
enum class Activity : uint8_t { kUnknown, kActive, kIdle };

class Timebase {
 public:
  explicit Timebase(const recording::Recording& recording);

  // What the picture covers. A forced full GC at the end is no part of it.
  double run_seconds() const { return run_seconds_; }
  // When the main isolate's event loop turned for the first time: what node itself allocates before is its start.
  double started_seconds() const { return started_seconds_; }
  bool has_checkpoints() const { return !recording_.checkpoints.empty(); }

  // Turns of all event loops between two moments; negative: not known.
  double TurnsBetween(double begin, double end) const;
  // Did the program work after `middle` as it had between `begin` and `middle`?
  Activity ActivityAfter(double begin, double middle) const;
  // Blocks that `stack` had allocated by `seconds`, between checkpoints by straight lines.
  double AllocatedBy(uint32_t stack, double seconds) const;

  // What some stacks had allocated by a checkpoint, together, and what of it was alive.
  struct Sum {
    double seconds = 0, allocated_blocks = 0, allocated_bytes = 0, live_bytes = 0;
  };
  std::vector<Sum> SumsOf(const std::vector<uint32_t>& stacks) const;

 private:
  struct Point {
    double seconds, blocks, bytes;  // allocated so far
    size_t checkpoint;
    double live_bytes;
  };
  double TurnsBy(double seconds) const;
  void ReadCurves();

  const recording::Recording& recording_;
  std::map<uint32_t, std::vector<Point>> curves_;  // by stack
  double run_seconds_ = 0, started_seconds_ = 0;
};

}  // namespace nodeleak::report
