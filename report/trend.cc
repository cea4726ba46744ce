#include "report/trend.h"

#include <algorithm>
#include <numeric>

namespace nodeleak::report {
namespace {

constexpr size_t kLooked = kTrendParts * 3 / 4;
constexpr double kStraight = 0.75;  // 1: no value may lie above the line
constexpr double kGradual = 0.3;    // of the end is there after five eighths: no burst at the end
constexpr double kMostGrowingBlocks = 3, kLeastBlockBytes = 512 * 1024;
constexpr double kFewestQueued = 50, kLeastQueueBytes = 512 * 1024;
constexpr double kSameRate = 2.5;  // the later half of the looked parts against the earlier
// Of a queue: between these, as shares of what was allocated, there are moments that show the line.
constexpr double kEarlyFrom = 0.1, kEarlyUntil = 0.55, kLateFrom = 0.6, kLateUntil = 0.91;
constexpr double kNearTheLine = 0.65, kWellBelowIt = 0.5;
constexpr double kLeastStep = 0.2;  // between them, of what is kept at the end

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

// What was kept at most, as share of what is kept at the end, at moments that lie along the line from zero.
std::vector<double> AlongTheLine(const Trend& trend, double from, double until) {
  std::vector<double> shares;
  for (const Alive& moment : trend.alive) {
    if (moment.at < from || moment.at > until) continue;
    const double share = trend.AtMost(moment.at) / trend.kept_bytes;
    if (share <= 1 - kNearTheLine * (1 - moment.at) && share >= kWellBelowIt * moment.at) shares.push_back(share);
  }
  return shares;
}

bool RisesAlongTheLine(const Trend& trend) {
  const std::vector<double> earlier = AlongTheLine(trend, kEarlyFrom, kEarlyUntil);
  const std::vector<double> later = AlongTheLine(trend, kLateFrom, kLateUntil);
  // At most so much only ever gets more.
  return !earlier.empty() && !later.empty() && later.back() - earlier.front() >= kLeastStep;
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

bool IsGrowingQueue(const Trend& trend) {
  if (!trend.is_measured || trend.kept_blocks < kFewestQueued) return false;
  return trend.kept_bytes - trend.AtMost(0) >= kLeastQueueBytes && RisesAlongTheLine(trend) &&
         !ComesFaster(trend.blocks);
}

}  // namespace nodeleak::report
