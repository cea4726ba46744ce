#include "report/trend.h"

namespace nodeleak::report {
namespace {

constexpr size_t kLooked = kTrendParts * 3 / 4;
constexpr double kStraight = 0.75;  // 1: no value may lie above the line
constexpr double kGradual = 0.3;    // of the end is there after five eighths: no burst at the end
constexpr double kMostGrowingBlocks = 3, kLeastBlockBytes = 512 * 1024;

bool StaysUnderTheLine(const std::array<double, kTrendParts>& values, double last) {
  for (size_t i = 0; i < kLooked; ++i) {
    const double to_come = 1 - static_cast<double>(i) / static_cast<double>(kTrendParts);
    if (values[i] > last * (1 - kStraight * to_come)) return false;
  }
  return true;
}

bool RisesSteadily(const std::array<double, kTrendParts>& values, double last) {
  for (size_t i = 1; i < kLooked; ++i) {
    if (values[i] <= values[i - 1]) return false;
  }
  return StaysUnderTheLine(values, last) && values[kLooked - 1] >= kGradual * last;
}

}  // namespace

bool IsGrowingBlock(const Trend& trend) {
  if (!trend.is_measured || trend.kept_blocks < 0.5 || trend.kept_blocks > kMostGrowingBlocks) return false;
  return trend.kept_bytes >= kLeastBlockBytes && RisesSteadily(trend.mean_bytes, trend.kept_bytes / trend.kept_blocks);
}

}  // namespace nodeleak::report
