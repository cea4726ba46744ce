#include "report/trend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nodeleak::report {
namespace {

constexpr size_t kLooked = kTrendParts * 3 / 4;
constexpr double kStraight = 0.75;  // 1: no value may lie above the line
constexpr double kGradual = 0.3;    // of the end is there after five eighths: no burst at the end
constexpr double kLeastBlockBytes = 512 * 1024;
constexpr double kFewestQueued = 50, kLeastQueueBytes = 512 * 1024;
constexpr double kLeastFactor = 1.4, kMostFactor = 4;  // of a doubling array
constexpr double kSooner = 0.6, kLater = 1.7;          // than at an even rate; checkpoints are some time apart
constexpr double kLastDoubling = 0.42;  // of the group's age: later ones are due after it is twice as old
constexpr double kSameRate = 2.5;       // the later half of the looked parts against the earlier

using Parts = std::array<double, kTrendParts>;

// From a little above zero to `last`; `at` says how far along it each value lies.
bool StaysUnderTheLine(const Parts& values, const Parts& at, double last) {
  for (size_t i = 0; i < kLooked; ++i) {
    if (values[i] > last * (1 - kStraight * (1 - at[i]))) return false;
  }
  return true;
}

bool RisesSteadily(const Parts& values, const Parts& at, double last) {
  for (size_t i = 1; i < kLooked; ++i) {
    if (values[i] <= values[i - 1]) return false;
  }
  return StaysUnderTheLine(values, at, last) && values[kLooked - 1] >= kGradual * last;
}

// Along what was allocated: a program may be slow for a while.
Parts MiddlesOfParts(const Parts& blocks) {
  const double all = std::accumulate(blocks.begin(), blocks.end(), 0.0);
  Parts middles = {};
  double before = 0;
  for (size_t i = 0; i < kTrendParts; before += blocks[i++]) middles[i] = (before + blocks[i] / 2) / all;
  return middles;
}

// A queue or a cache that lets go after a time holds more when more comes.
bool ComesFaster(const Parts& blocks) {
  double earlier = 0, later = 0;
  for (size_t i = 0; i < kLooked; ++i) (i < kLooked / 2 ? earlier : later) += blocks[i];
  return later > kSameRate * earlier;
}

// The least that was alive in each eighth of what was allocated: ever more, and under the line to the end.
bool LeastRisesSteadily(const Trend& trend) {
  Parts least = {}, at = {};
  for (const Alive& moment : trend.alive) {
    const auto part = static_cast<size_t>(moment.at * kTrendParts);
    if (part >= kTrendParts || (at[part] != 0 && moment.bytes >= least[part])) continue;
    least[part] = moment.bytes;
    at[part] = moment.at;
  }
  return RisesSteadily(least, at, trend.kept_bytes);
}

}  // namespace

double Trend::AtMost(double at) const {
  double least = kept_bytes;
  for (const Alive& moment : alive) {
    if (moment.at >= at) least = std::min(least, moment.bytes);
  }
  return least;
}

bool IsGrowingBlock(const Trend& trend) {
  if (!trend.is_measured || trend.kept_blocks < 0.5 || trend.kept_blocks > kMostGrowingBlocks) return false;
  return trend.largest_bytes >= kLeastBlockBytes &&
         RisesSteadily(trend.mean_bytes, MiddlesOfParts(trend.blocks), trend.largest_bytes);
}

void AddStep(const Step& step, std::vector<Step>* steps) {
  constexpr double kLeastFactorOfTwo = 1.7;  // below, two of one size could be meant
  if (step.blocks == 2 && !steps->empty() && steps->back().mean_bytes > 0) {
    const double before = steps->back().mean_bytes;
    const double factor = (std::sqrt(1 + 8 * step.mean_bytes / before) - 1) / 2;  // f + f * f = 2 * mean / before
    if (factor >= kLeastFactorOfTwo && factor <= kMostFactor) {
      steps->push_back({step.seconds, 1, before * factor});
      steps->push_back({step.seconds, 1, before * factor * factor});
      return;
    }
  }
  steps->push_back(step);
}

bool IsDoublingBlock(const Trend& trend, double seconds) {
  if (trend.steps.size() < kDoublings) return false;
  const Step* last = &trend.steps.back();
  if (last->mean_bytes < kLeastBlockBytes || last->seconds < kLastDoubling * seconds) return false;
  for (const Step* step = last - (kDoublings - 2); step <= last; ++step) {
    const Step& before = step[-1];
    const double factor = step->mean_bytes / before.mean_bytes, longer = step->seconds / before.seconds;
    if (step->blocks > 1.5 || factor < kLeastFactor || factor > kMostFactor) return false;
    // Of the first one only when it was found is known.
    if (step > last - 2 && (longer < kSooner * factor || longer > kLater * factor)) return false;
  }
  return true;
}

bool IsGrowingQueue(const Trend& trend) {
  if (!trend.is_measured || trend.kept_blocks < kFewestQueued) return false;
  return trend.kept_bytes - trend.AtMost(0) >= kLeastQueueBytes && LeastRisesSteadily(trend) &&
         !ComesFaster(trend.blocks);
}

}  // namespace nodeleak::report
