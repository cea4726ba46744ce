#include "report/verdict.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

// Thresholds were tuned in a simulation of 12 patterns at 500 to 50,000 allocations.
constexpr double kConfidenceZ = 1.64;  // 90 %
constexpr size_t kTailWindows = 2;     // the youngest tenth may simply not be freed yet
constexpr size_t kThird = (kWindows - kTailWindows) / 3;
constexpr double kOldAgainstYoung = 0.35, kMiddleAgainstYoung = 0.5, kYoungAgainstOld = 0.5;
constexpr uint64_t kFewSurvivors = 10, kManySurvivors = 50, kTooFewSurvivors = 5;
constexpr double kOccupiedEnough = 0.6;
constexpr double kShortestRun = 0.5, kShortestLife = 0.4;  // seconds
constexpr double kShortestShareOfRun = 0.02;
constexpr double kMetGcEnough = 0.3;

struct Proportion {
  double survivors = 0, allocated = 0;

  double Value() const { return allocated <= 0 ? 0 : survivors / allocated; }
  double Lower() const { return Wilson(-1); }
  double Upper() const { return allocated <= 0 ? 1 : Wilson(1); }

 private:
  double Wilson(int sign) const {
    if (allocated <= 0) return 0;
    const double n = allocated, p = std::min(1.0, Value()), z = kConfidenceZ;
    const double margin = z * std::sqrt((p * (1 - p) + z * z / 4 / n) / n);
    return std::clamp((p + z * z / 2 / n + sign * margin) / (1 + z * z / n), 0.0, 1.0);
  }
};

Proportion SumOf(const Evidence& evidence, size_t begin, size_t end) {
  Proportion sum;
  for (size_t i = begin; i < end; ++i) {
    sum.survivors += static_cast<double>(evidence.windows[i].survivors);
    sum.allocated += evidence.windows[i].allocated;
  }
  return sum;
}

struct Thirds {
  Proportion old, middle, young, tail;
  double survivors() const { return old.survivors + middle.survivors + young.survivors; }
  double allocated() const { return old.allocated + middle.allocated + young.allocated; }
};
Thirds ThirdsOf(const Evidence& evidence) {
  return {SumOf(evidence, 0, kThird), SumOf(evidence, kThird, 2 * kThird), SumOf(evidence, 2 * kThird, 3 * kThird),
          SumOf(evidence, 3 * kThird, kWindows)};
}

std::string Percent(const Proportion& proportion) {
  const double percent = 100 * std::min(1.0, proportion.Value());
  return percent > 0 && percent < 10 ? absl::StrFormat("%.1f %%", percent) : absl::StrFormat("%.0f %%", percent);
}

std::string AgesSentence(const Thirds& thirds) {
  return absl::StrCat("still outstanding: ", Percent(thirds.old),
                      " of what was allocated in the oldest third of its time, ", Percent(thirds.middle),
                      " of the middle, ", Percent(thirds.young), " of the youngest");
}

std::string GcSentence(const Evidence& evidence) {
  if (evidence.survived_gcs.max == 0) return "no full GC ran since these blocks were allocated: they may be garbage";
  return absl::StrCat("half of the blocks survived at least ", Plural(evidence.survived_gcs.median, "full GC"));
}

// The longest-lived window would hide that only few windows hold anything.
double Occupied(const Evidence& evidence) {
  double occupied = 0;
  for (size_t i = 0; i < 3 * kThird; ++i) {
    const Window& window = evidence.windows[i];
    occupied += window.survivors > 0 || window.allocated < 0.5;
  }
  return occupied / (3 * kThird);
}

bool EveryAgeSurvives(const Thirds& t) {
  const Proportion older = {t.old.survivors + t.middle.survivors, t.old.allocated + t.middle.allocated};
  return older.Lower() > 0 && t.middle.survivors > 0 && t.young.survivors > 0 &&
         t.middle.Upper() >= kMiddleAgainstYoung * t.young.Lower() &&
         t.old.Upper() >= kOldAgainstYoung * t.young.Lower() && t.young.Upper() >= kYoungAgainstOld * t.old.Lower();
}

Judgement New(std::string why) { return {Verdict::kNew, Confidence::kLow, {std::move(why)}, 0}; }

double MetGcShare(const Evidence& evidence) {
  if (evidence.live_blocks == 0) return 0;
  return static_cast<double>(evidence.blocks_that_met_a_gc) / static_cast<double>(evidence.live_blocks);
}

Confidence ConfidenceOfGrowth(const Evidence& evidence, const Thirds& thirds) {
  if (thirds.survivors() < kFewSurvivors) return Confidence::kLow;
  const bool gc_confirms = !evidence.owned_by_collector || evidence.survived_gcs.median >= 2;
  return thirds.survivors() >= kManySurvivors && evidence.windows_measured && gc_confirms ? Confidence::kHigh
                                                                                          : Confidence::kLikely;
}

uint64_t SurvivingBytesPerSecond(const Evidence& evidence) {
  uint64_t bytes = 0;
  for (const Window& window : evidence.windows) bytes += window.survivor_bytes;
  const double seconds = evidence.end_seconds - evidence.begin_seconds;
  return seconds <= 0 ? 0 : static_cast<uint64_t>(static_cast<double>(bytes) / seconds);
}

Judgement Growing(const Evidence& evidence, const Thirds& thirds) {
  if (thirds.survivors() < kTooFewSurvivors ||
      (thirds.survivors() < kFewSurvivors && Occupied(evidence) < kOccupiedEnough)) {
    return New(absl::StrCat("only ", Plural(evidence.live_blocks, "block"), ": too few to tell a leak from a cache"));
  }
  if (evidence.owned_by_collector && MetGcShare(evidence) < kMetGcEnough) {
    Judgement unsure = New(evidence.survived_gcs.max == 0 ? GcSentence(evidence)
                                                          : "most blocks have not met a full GC: they may be garbage");
    unsure.evidence.push_back(AgesSentence(thirds));
    return unsure;
  }
  Judgement growing = {Verdict::kGrowing,
                       ConfidenceOfGrowth(evidence, thirds),
                       {AgesSentence(thirds)},
                       SurvivingBytesPerSecond(evidence)};
  if (evidence.owned_by_collector) growing.evidence.push_back(GcSentence(evidence));
  const double idle = evidence.run_seconds - evidence.last_allocation_seconds;
  if (idle > 0.1 * evidence.run_seconds && idle > kShortestRun) {
    growing.evidence.push_back(absl::StrCat("nothing was allocated here in the last ", FormatSeconds(idle)));
  }
  return growing;
}

Judgement Bounded(const Thirds& thirds, std::string sentence) {
  const Confidence confidence = thirds.allocated() >= kManySurvivors  ? Confidence::kHigh
                                : thirds.allocated() >= kFewSurvivors ? Confidence::kLikely
                                                                      : Confidence::kLow;
  return {Verdict::kBounded, confidence, {std::move(sentence)}, 0};
}

Judgement Startup(const Evidence& evidence, std::string sentence) {
  const double since = evidence.run_seconds - evidence.last_allocation_seconds;
  return {Verdict::kStartup, since > 5 ? Confidence::kHigh : Confidence::kLikely, {std::move(sentence)}, 0};
}

std::string ConstantSinceSentence(const Evidence& evidence) {
  return absl::StrCat("allocated between ", FormatSeconds(evidence.first_allocation_seconds), " and ",
                      FormatSeconds(evidence.last_allocation_seconds), ", nothing in the ",
                      FormatSeconds(evidence.run_seconds - evidence.last_allocation_seconds), " since");
}

bool IsTooYoung(const Evidence& evidence) {
  const double life = evidence.run_seconds - evidence.first_allocation_seconds;
  return life < kShortestLife || life < kShortestShareOfRun * evidence.run_seconds;
}

// Nothing was allocated in the later two thirds of the run.
bool IsEarlyOnly(const Evidence& evidence) {
  const double life = evidence.run_seconds - evidence.first_allocation_seconds;
  const double active = evidence.last_allocation_seconds - evidence.first_allocation_seconds;
  return active < life / 3;
}

}  // namespace

Judgement Judge(const Evidence& evidence) {
  if (evidence.live_blocks == 0 && evidence.reserved_bytes != 0) {
    return {Verdict::kReserved,
            Confidence::kHigh,
            {absl::StrCat(FormatBytes(evidence.reserved_bytes),
                          " of address space, not memory: mapped without access, or never in use as a whole")},
            0};
  }
  if (evidence.run_seconds < kShortestRun) {
    return New(absl::StrCat("the recording is too short to judge: ", FormatSeconds(evidence.run_seconds)));
  }
  if (IsTooYoung(evidence)) {
    return New(absl::StrCat("first allocated ", FormatSeconds(evidence.run_seconds - evidence.first_allocation_seconds),
                            " before the end: too young to judge"));
  }
  if (IsEarlyOnly(evidence)) return Startup(evidence, ConstantSinceSentence(evidence));

  const Thirds thirds = ThirdsOf(evidence);
  if (thirds.survivors() < 0.5) {
    if (thirds.allocated() < 0.5) return New("all of it is from the last tenth of the run: too young to judge");
    return Bounded(
        thirds,
        "only the youngest are outstanding: whatever was allocated before the last tenth of its time has been freed");
  }
  if (thirds.middle.survivors < 0.5 && thirds.young.survivors < 0.5) {
    return Startup(evidence, absl::StrCat("only the oldest stay: ", AgesSentence(thirds)));
  }
  if (EveryAgeSurvives(thirds)) return Growing(evidence, thirds);
  if (thirds.young.Value() > thirds.old.Value()) {
    return Bounded(thirds, absl::StrCat("turns over, the old ones go: ", AgesSentence(thirds)));
  }
  return Startup(evidence, absl::StrCat("ever fewer are kept: ", AgesSentence(thirds)));
}

}  // namespace nodeleak::report
