#include "report/verdict.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

// docs/verdicts.md says what each of these is for.
constexpr double kShortestRun = 0.5, kShortestLife = 0.8, kShortestGrowth = 0.8;  // seconds
constexpr double kShortestShareOfRun = 0.02;
constexpr double kShortestTrend = 2;                                                    // seconds
constexpr double kSureGrowth = 3, kDoubtfulGrowth = 1.5, kDoubtfulGrowthOfRunning = 2;  // seconds
constexpr double kFewestSurvivors = 4, kFewSurvivors = 10, kManySurvivors = 50;
constexpr double kFewMustStay = 0.5, kFewMustOccupy = 0.6;
constexpr uint64_t kLeastFewBytes = 128 * 1024, kLeastBytes = 16 * 1024, kLeastBytesWithoutSite = 64 * 1024,
                   kLeastV8Bytes = 1024 * 1024;
constexpr double kMuchStays = 0.3;
constexpr double kOnePieceOfWork = 10;  // turns of the event loop
constexpr double kEverLess = 0.75, kLittleAtLast = 0.4, kFewTurnsOfAThird = 10;
constexpr double kSilentShare = 0.25, kSilentPauses = 2;
constexpr double kBusyShare = 0.4, kBusyLong = 20;  // seconds

std::string Percent(const Proportion& proportion) {
  const double percent = 100 * std::min(1.0, proportion.Value());
  return percent > 0 && percent < 10 ? absl::StrFormat("%.1f %%", percent) : absl::StrFormat("%.0f %%", percent);
}

std::string AgesSentence(const Thirds& thirds) {
  return absl::StrCat("still outstanding: ", Percent(thirds.old),
                      " of what was allocated in the oldest third of its time, ", Percent(thirds.middle),
                      " of the middle, ", Percent(thirds.young), " of the youngest");
}

std::string SurvivedSentence(const Evidence& evidence) {
  return absl::StrCat("half of the blocks survived at least ", Plural(evidence.survived_gcs.median, "full GC"));
}

std::string UnseenSentence(const Evidence& evidence) {
  if (!evidence.doubt.empty()) return evidence.doubt;
  if (evidence.survived_gcs.max == 0) return "no full GC ran since these blocks were allocated: they may be garbage";
  return absl::StrCat("the last full GC was at ", FormatSeconds(evidence.last_gc_seconds),
                      ": what was allocated since may be garbage");
}

std::string ConstantSinceSentence(const Evidence& evidence) {
  return absl::StrCat("allocated between ", FormatSeconds(evidence.first_allocation_seconds), " and ",
                      FormatSeconds(evidence.last_allocation_seconds), ", nothing in the ",
                      FormatSeconds(evidence.run_seconds - evidence.last_allocation_seconds), " since");
}

Judgement New(std::string why) { return {Verdict::kNew, Confidence::kLow, {std::move(why)}, {}}; }

Judgement Startup(const Evidence& evidence, std::string sentence) {
  const double since = evidence.run_seconds - evidence.last_allocation_seconds;
  return {Verdict::kStartup, since > 5 ? Confidence::kHigh : Confidence::kLikely, {std::move(sentence)}, {}};
}

Judgement Bounded(const Thirds& thirds, std::string sentence) {
  const Confidence confidence = thirds.allocated() >= kManySurvivors  ? Confidence::kHigh
                                : thirds.allocated() >= kFewSurvivors ? Confidence::kLikely
                                                                      : Confidence::kLow;
  return {Verdict::kBounded, confidence, {std::move(sentence)}, {}};
}

bool IsTooYoung(const Evidence& evidence) {
  const double life = evidence.run_seconds - evidence.first_allocation_seconds;
  return life < kShortestLife || life < kShortestShareOfRun * evidence.run_seconds;
}

// A group that allocates no more has stopped, unless the program itself fell idle: then only a short time of work
// before a long idle one is a start rather than a leak whose load has ended.
std::optional<Judgement> JudgeSilence(const Evidence& evidence) {
  const double life = evidence.run_seconds - evidence.first_allocation_seconds;
  const double busy = evidence.last_allocation_seconds - evidence.first_allocation_seconds;
  const double silence = life - busy;
  if (silence <= kSilentShare * life || silence <= kSilentPauses * evidence.longest_pause_seconds) return std::nullopt;
  if (evidence.activity_after == Activity::kIdle && (busy >= kBusyShare * life || busy >= kBusyLong)) {
    return std::nullopt;
  }
  return Startup(evidence, ConstantSinceSentence(evidence));
}

// --- growth

std::string FewSentence(const Evidence& evidence) {
  return absl::StrCat("only ", Plural(evidence.live_blocks, "block"), ": too few to tell a leak from a cache");
}

double StayingShare(const Thirds& thirds) { return Proportion{thirds.survivors(), thirds.allocated()}.Value(); }

// V8's bookkeeping follows the objects, code and pages of the program: a little more of it is no leak of its own.
uint64_t LeastBytes(const Evidence& evidence, bool few) {
  if (evidence.kind == Kind::kV8Internal) return kLeastV8Bytes;
  if (few) return kLeastFewBytes;
  return evidence.application_site ? kLeastBytes : kLeastBytesWithoutSite;
}

// Without a line of the application: certificates that are loaded, a table that is filled. An addon's threads need no
// turns.
bool IsOnePieceOfWork(const Evidence& evidence) {
  const bool by_threads = evidence.kind == Kind::kAddon || evidence.kind == Kind::kNative ||
                          evidence.kind == Kind::kMapping || !evidence.owned_by_collector;
  return !evidence.application_site && !by_threads && evidence.turns >= 0 && evidence.turns < kOnePieceOfWork;
}

std::string WhyTooFew(const Evidence& evidence, const Thirds& thirds) {
  const bool few = thirds.survivors() < kFewSurvivors;
  if (thirds.survivors() < kFewestSurvivors ||
      (few && (OccupiedShare(evidence.windows) < kFewMustOccupy || StayingShare(thirds) < kFewMustStay))) {
    return FewSentence(evidence);
  }
  uint64_t bytes = 0;
  for (const Window& window : evidence.windows) bytes += window.survivor_bytes;
  if (bytes < LeastBytes(evidence, few))
    return absl::StrCat("only ", FormatBytes(bytes), " stayed: too little to call it a leak");
  return "";
}

GrowthRate RateOf(const Evidence& evidence) {
  GrowthRate rate = {0, 0, evidence.begin_seconds, evidence.end_seconds};
  const double seconds = evidence.end_seconds - evidence.begin_seconds;
  double bytes = 0, blocks = 0;
  for (const Window& window : evidence.windows) {
    bytes += static_cast<double>(window.survivor_bytes);
    blocks += static_cast<double>(window.survivor_blocks);
  }
  rate.bytes_per_second = static_cast<uint64_t>(bytes / seconds);
  rate.blocks_per_second = blocks / seconds;
  return rate;
}

std::string RateSentence(const GrowthRate& rate) {
  const std::string blocks =
      rate.blocks_per_second == 0 ? "" : absl::StrCat(" in ", FormatRate(rate.blocks_per_second, "block"));
  return absl::StrCat(FormatBytes(rate.bytes_per_second), blocks, " per second stayed, measured from ",
                      FormatSeconds(rate.from_seconds), " to ", FormatSeconds(rate.until_seconds));
}

// What is short enough to be a cache that has not been full yet.
bool MayStillFill(const Evidence& evidence) {
  return evidence.runs_on && evidence.end_seconds - evidence.begin_seconds < kDoubtfulGrowthOfRunning;
}

Confidence ConfidenceOfGrowth(const Evidence& evidence, const Thirds& thirds) {
  const double seconds = evidence.end_seconds - evidence.begin_seconds;
  const bool idle_since = evidence.activity_after == Activity::kIdle &&
                          evidence.end_seconds < evidence.run_seconds - kSilentShare * seconds;
  if (thirds.survivors() < kFewSurvivors || seconds < kDoubtfulGrowth || idle_since || MayStillFill(evidence))
    return Confidence::kLow;
  const bool gc_confirms = !evidence.owned_by_collector || evidence.survived_gcs.median >= 2;
  const bool sure =
      thirds.survivors() >= kManySurvivors && seconds >= kSureGrowth && evidence.windows_measured && gc_confirms;
  return sure ? Confidence::kHigh : Confidence::kLikely;
}

bool IsUnseen(const Evidence& evidence) { return evidence.owned_by_collector && !evidence.seen_by_gc; }

Judgement Unseen(const Evidence& evidence, const Thirds& thirds) {
  Judgement unsure = New(UnseenSentence(evidence));
  unsure.evidence.push_back(AgesSentence(thirds));
  return unsure;
}

// Before a full GC a leak of a few blocks among many lies under the garbage of the youngest.
bool MayHideUnderGarbage(const Evidence& evidence, const Thirds& thirds) {
  return IsUnseen(evidence) && thirds.old.survivors >= kFewestSurvivors && thirds.middle.survivors >= kFewestSurvivors;
}

std::array<double, 3> KeptBytesOfThirds(const Windows& windows) {
  std::array<double, 3> bytes = {};
  for (size_t i = 0; i < 3 * kThird; ++i) bytes[i / kThird] += static_cast<double>(windows[i].survivor_bytes);
  return bytes;
}

bool FallsFromThirdToThird(const std::array<double, 3>& amounts) {
  return amounts[1] <= kEverLess * amounts[0] && amounts[2] <= kEverLess * amounts[1] &&
         amounts[2] <= kLittleAtLast * amounts[0];
}

// A table of what there is to know: each thing is kept, but ever less is new, while the program works on as before.
bool FillsUp(const Evidence& evidence, const Thirds& thirds) {
  const std::array<double, 3> bytes = KeptBytesOfThirds(evidence.windows);
  std::array<double, 3> each_turn = bytes;
  for (size_t i = 0; i < each_turn.size(); ++i) {
    if (evidence.turns_of_thirds[i] < kFewTurnsOfAThird) return false;
    each_turn[i] /= evidence.turns_of_thirds[i];
  }
  return thirds.old.survivors >= kManySurvivors / 2 && FallsFromThirdToThird(bytes) && FallsFromThirdToThird(each_turn);
}

std::string FillsUpSentence(const Evidence& evidence) {
  const std::array<double, 3> bytes = KeptBytesOfThirds(evidence.windows);
  const auto format = [&](size_t third) { return FormatBytes(static_cast<uint64_t>(bytes[third])); };
  return absl::StrCat("fills up: all ages are kept, but ever less came while the program worked on: ", format(0),
                      " in the oldest third of its time, ", format(1), " in the middle, ", format(2),
                      " in the youngest");
}

Judgement Growing(const Evidence& evidence, const Thirds& thirds) {
  const double seconds = evidence.end_seconds - evidence.begin_seconds;
  if (seconds < kShortestGrowth) return New(absl::StrCat("seen for ", FormatSeconds(seconds), ": too short to judge"));
  if (IsUnseen(evidence)) return Unseen(evidence, thirds);
  if (IsOnePieceOfWork(evidence)) return Startup(evidence, "allocated in one go, in a few turns of the event loop");
  if (std::string why = WhyTooFew(evidence, thirds); !why.empty()) return New(std::move(why));
  const auto unsure = [&](const char* why) {
    Judgement judgement = New(why);
    judgement.evidence.push_back(AgesSentence(thirds));
    return judgement;
  };
  if (thirds.FallsWithAge())
    return unsure("fewer of the old are left than of the young: a cache that turns over, or too few to tell");
  if (thirds.RisesWithAge())
    return unsure("ever fewer are kept: a cache that has what is asked for often, or too few to tell");
  if (FillsUp(evidence, thirds)) return {Verdict::kBounded, Confidence::kLikely, {FillsUpSentence(evidence)}, {}};
  Judgement growing = {
      Verdict::kGrowing, ConfidenceOfGrowth(evidence, thirds), {AgesSentence(thirds)}, RateOf(evidence)};
  if (evidence.owned_by_collector) growing.evidence.push_back(SurvivedSentence(evidence));
  growing.evidence.push_back(RateSentence(growing.rate));
  if (MayStillFill(evidence))
    growing.evidence.push_back(
        "seen for a short time only, and the process runs on: a cache that still fills looks the same");
  const double idle = evidence.run_seconds - evidence.last_allocation_seconds;
  if (idle > kSilentShare * seconds && idle > kShortestRun) {
    growing.evidence.push_back(
        absl::StrCat("nothing was allocated here in the last ", FormatSeconds(idle),
                     evidence.activity_after == Activity::kIdle ? ", the program was idle" : ""));
  }
  return growing;
}

std::string BlockSentence(const Trend& trend) {
  return absl::StrCat(
      "each block is larger than the one it replaces: ", FormatBytes(static_cast<uint64_t>(trend.mean_bytes[0])),
      " at the beginning, ", FormatBytes(static_cast<uint64_t>(trend.largest_bytes)), " at the end");
}

std::string QueueSentence(const Trend& trend) {
  return absl::StrCat("the old ones go, but it fills faster than it empties: at most ",
                      FormatBytes(static_cast<uint64_t>(trend.AtMost(0))), " at the beginning, ",
                      FormatBytes(static_cast<uint64_t>(trend.AtMost(0.5))), " in the middle, ",
                      FormatBytes(static_cast<uint64_t>(trend.kept_bytes)), " at the end");
}

Judgement GrowingBy(double bytes, std::string sentence, const Evidence& evidence) {
  GrowthRate rate = {0, 0, evidence.begin_seconds, evidence.end_seconds};
  rate.bytes_per_second = static_cast<uint64_t>(bytes / (evidence.end_seconds - evidence.begin_seconds));
  return {Verdict::kGrowing, Confidence::kLikely, {std::move(sentence), RateSentence(rate)}, rate};
}

// The old ones go, and yet it grows.
std::optional<Judgement> JudgeTrend(const Evidence& evidence) {
  const Trend& trend = evidence.trend;
  if (evidence.end_seconds - evidence.begin_seconds < kShortestTrend || IsUnseen(evidence)) return std::nullopt;
  if (IsGrowingBlock(trend)) {
    return GrowingBy(trend.largest_bytes - trend.mean_bytes[0], BlockSentence(trend), evidence);
  }
  if (evidence.application_site && IsGrowingQueue(trend)) {
    return GrowingBy(trend.kept_bytes - trend.AtMost(0), QueueSentence(trend), evidence);
  }
  return std::nullopt;
}

std::string DoublingSentence(const Evidence& evidence) {
  std::string sizes;
  const std::vector<Step>& steps = evidence.trend.steps;
  for (size_t i = steps.size() - kDoublings; i < steps.size(); ++i) {
    absl::StrAppend(&sizes, sizes.empty() ? "" : ", ", FormatBytes(static_cast<uint64_t>(steps[i].mean_bytes)), " by ",
                    FormatSeconds(evidence.first_allocation_seconds + steps[i].seconds));
  }
  return absl::StrCat("each block is about twice the one before, as of an array that doubles when it is full: ", sizes);
}

// Ever fewer and larger blocks: long pauses between them are no stop.
std::optional<Judgement> JudgeDoubling(const Evidence& evidence) {
  const double age = evidence.run_seconds - evidence.first_allocation_seconds;
  if (!evidence.application_site || evidence.kind == Kind::kV8Internal || evidence.kind == Kind::kV8Heap ||
      age < kShortestTrend || !IsDoublingBlock(evidence.trend, age)) {
    return std::nullopt;
  }
  std::string sentence = DoublingSentence(evidence);
  if (IsUnseen(evidence)) {
    Judgement unsure = New(UnseenSentence(evidence));
    unsure.evidence.push_back(std::move(sentence));
    return unsure;
  }
  if (evidence.live_blocks == 0 || static_cast<double>(evidence.live_blocks) > kMostGrowingBlocks) return std::nullopt;
  const std::vector<Step>& steps = evidence.trend.steps;
  return GrowingBy(evidence.trend.largest_bytes - steps.front().mean_bytes, std::move(sentence), evidence);
}

// Nothing that was allocated before the tail is outstanding.
Judgement OnlyTail(const Evidence& evidence, const Thirds& thirds) {
  if (2 * evidence.blocks_of_the_start > evidence.live_blocks) {
    return Startup(evidence, "allocated while node started, before its event loop turned");
  }
  if (thirds.allocated() < 0.5) {
    return New("all of it is from the last tenth of the run: too young to judge");
  }
  return Bounded(
      thirds,
      "only the youngest are outstanding: whatever was allocated before the last tenth of its time has been freed");
}

// How much was kept before, no collection has told.
Judgement TurnsOver(const Thirds& thirds) {
  Judgement bounded = Bounded(thirds, absl::StrCat("turns over, the old ones go: ", AgesSentence(thirds)));
  if (StayingShare(thirds) >= kMuchStays) {
    bounded.confidence = Confidence::kLow;
    bounded.evidence.push_back(
        "much of all that was allocated is left: a queue that fills faster than it empties looks the same");
  }
  return bounded;
}

}  // namespace

Judgement Judge(const Evidence& evidence) {
  if (evidence.live_blocks == 0 && evidence.reserved_bytes != 0) {
    return {Verdict::kReserved,
            Confidence::kHigh,
            {absl::StrCat(FormatBytes(evidence.reserved_bytes),
                          " of address space, not memory: mapped without access, or never in use as a whole")},
            {}};
  }
  if (evidence.run_seconds < kShortestRun) {
    return New(absl::StrCat("the recording is too short to judge: ", FormatSeconds(evidence.run_seconds)));
  }
  if (IsTooYoung(evidence)) {
    return New(absl::StrCat("first allocated ", FormatSeconds(evidence.run_seconds - evidence.first_allocation_seconds),
                            " before the end: too young to judge"));
  }
  if (std::optional<Judgement> doubling = JudgeDoubling(evidence)) return *std::move(doubling);
  if (std::optional<Judgement> stopped = JudgeSilence(evidence)) return *std::move(stopped);

  const Thirds thirds = ThirdsOf(evidence.windows);
  if (!thirds.EveryAgeSurvives()) {
    if (std::optional<Judgement> growing = JudgeTrend(evidence)) return *std::move(growing);
    if (IsUnseen(evidence) && IsGrowingQueue(evidence.trend)) return Unseen(evidence, thirds);
  }
  if (thirds.survivors() < 0.5) return OnlyTail(evidence, thirds);
  if (thirds.EveryAgeSurvives()) return Growing(evidence, thirds);
  if (thirds.allocated() < kFewSurvivors && StayingShare(thirds) >= kFewMustStay) return New(FewSentence(evidence));
  if (thirds.middle.survivors < 0.5 && thirds.young.survivors < 0.5) {
    return Startup(evidence, absl::StrCat("only the oldest stay: ", AgesSentence(thirds)));
  }
  if (MayHideUnderGarbage(evidence, thirds)) return Unseen(evidence, thirds);
  if (thirds.young.Value() > thirds.old.Value()) return TurnsOver(thirds);
  return Startup(evidence, absl::StrCat("ever fewer are kept: ", AgesSentence(thirds)));
}

}  // namespace nodeleak::report
