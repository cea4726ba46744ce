#include "report/survival.h"

#include <algorithm>
#include <cmath>

namespace nodeleak::report {
namespace {

// Tuned in a simulation of 12 patterns at 500 to 50,000 allocations.
constexpr double kConfidenceZ = 1.64;  // 90 %
constexpr double kOldAgainstYoung = 0.35, kMiddleAgainstYoung = 0.5, kYoungAgainstOld = 0.5;
constexpr double kOldFalls = 0.25, kMiddleFalls = 0.4;
constexpr double kFewForACurve = 50;
// About as much is left of a cache with random eviction that has been filled once to three times.
constexpr double kLeastOfSmallCache = 0.3, kMostOfSmallCache = 0.85, kOldOfFewFalls = 0.85;
constexpr double kYoungOfFewFalls = 0.4, kMiddleOfFewFalls = 0.7;

Proportion SumOf(const Windows& windows, size_t begin, size_t end) {
  Proportion sum;
  for (size_t i = begin; i < end; ++i) {
    sum.survivors += static_cast<double>(windows[i].survivors);
    sum.allocated += windows[i].allocated;
  }
  return sum;
}

}  // namespace

double Proportion::Wilson(int sign) const {
  const double n = allocated, p = std::min(1.0, Value()), z = kConfidenceZ;
  const double margin = z * std::sqrt((p * (1 - p) + z * z / 4 / n) / n);
  return std::clamp((p + z * z / 2 / n + sign * margin) / (1 + z * z / n), 0.0, 1.0);
}

bool Thirds::EveryAgeSurvives() const {
  const Proportion older = {old.survivors + middle.survivors, old.allocated + middle.allocated};
  return older.Lower() > 0 && middle.survivors > 0 && young.survivors > 0 &&
         middle.Upper() >= kMiddleAgainstYoung * young.Lower() && old.Upper() >= kOldAgainstYoung * young.Lower() &&
         young.Upper() >= kYoungAgainstOld * old.Lower();
}

bool Thirds::FallsWithAge() const {
  const double share = Proportion{survivors(), allocated()}.Value();
  const bool few_of_a_small_cache =
      survivors() < kFewForACurve && share >= kLeastOfSmallCache && share <= kMostOfSmallCache;
  return old.Value() < (few_of_a_small_cache ? kOldOfFewFalls : kOldFalls) * young.Value() ||
         (middle.Value() < kMiddleFalls * young.Value() && old.Value() < middle.Value());
}

bool Thirds::RisesWithAge() const {
  return survivors() < kFewForACurve && young.Value() < kYoungOfFewFalls * old.Value() &&
         (middle.Value() < kMiddleOfFewFalls * old.Value() ||
          (young.Value() <= middle.Value() && middle.Value() < old.Value()));
}

Thirds ThirdsOf(const Windows& windows) {
  return {SumOf(windows, 0, kThird), SumOf(windows, kThird, 2 * kThird), SumOf(windows, 2 * kThird, 3 * kThird),
          SumOf(windows, 3 * kThird, kWindows)};
}

double OccupiedShare(const Windows& windows) {
  double occupied = 0;
  for (size_t i = 0; i < 3 * kThird; ++i) occupied += windows[i].survivors > 0 || windows[i].allocated < 0.5;
  return occupied / (3 * kThird);
}

}  // namespace nodeleak::report
