// Verdicts against simulated programs: what each keeps is known, so is the word it must get.
#include <cmath>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/verdict.h"

namespace nodeleak::report {
namespace {

constexpr double kRun = 100;  // seconds

struct Program {
  std::mt19937 random;
  std::vector<double> births;
  std::vector<bool> alive;
  std::deque<size_t> kept;  // of rings and caches

  explicit Program(unsigned seed) : random(seed) {}
  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random); }
};
// Called for each allocation, after births and alive (true) have grown by it. Returns false: did not allocate at all.
using Keep = std::function<bool(Program*, size_t, double)>;

struct Pattern {
  const char* name;
  Verdict expected;
  Keep keep;
};

Keep KeepShare(double share) {
  return [share](Program* p, size_t i, double) { return p->alive[i] = p->Uniform() < share, true; };
}
Keep Ring(size_t capacity) {
  return [capacity](Program* p, size_t i, double) {
    p->kept.push_back(i);
    if (p->kept.size() > capacity) p->alive[p->kept.front()] = false, p->kept.pop_front();
    return true;
  };
}
Keep RandomEviction(size_t capacity) {
  return [capacity](Program* p, size_t i, double) {
    p->kept.push_back(i);
    if (p->kept.size() <= capacity) return true;
    std::swap(p->kept[static_cast<size_t>(p->Uniform() * static_cast<double>(p->kept.size()))], p->kept.back());
    p->alive[p->kept.back()] = false;
    p->kept.pop_back();
    return true;
  };
}
Keep ExpiresAfter(double seconds) {
  return [seconds](Program* p, size_t i, double t) {
    return p->alive[i] = p->Uniform() < std::exp(-(kRun - t) / seconds), true;
  };
}
Keep OnlyBefore(double end) {
  return [end](Program*, size_t, double t) { return t < end; };
}
Keep KeptIfBefore(double end) {
  return [end](Program* p, size_t i, double t) { return p->alive[i] = t < end, true; };
}
Keep KeptIfAfter(double begin) {
  return [begin](Program* p, size_t i, double t) { return p->alive[i] = t > begin, true; };
}

const Pattern kPatterns[] = {
    {"leak of all", Verdict::kGrowing, KeepShare(1)},
    {"leak of one in twenty", Verdict::kGrowing, KeepShare(0.05)},
    {"ring", Verdict::kBounded, Ring(300)},
    {"cache with random eviction", Verdict::kBounded, RandomEviction(300)},
    {"cache with expiry", Verdict::kBounded, ExpiresAfter(5)},
    {"sawtooth", Verdict::kBounded, KeptIfAfter(85)},
    {"garbage of the end", Verdict::kBounded, KeptIfAfter(97)},
    {"table filled at the start", Verdict::kStartup, OnlyBefore(12)},
    {"leak that stopped", Verdict::kStartup, KeptIfBefore(30)},
    {"leak that stopped late", Verdict::kStartup, KeptIfBefore(55)},
};

Program Simulate(const Pattern& pattern, double rate, bool waving, unsigned seed) {
  Program program(seed);
  for (double t = 0;;) {
    const double now_rate = waving ? rate * (1 + 0.8 * std::sin(t / 7)) : rate;
    t += std::exponential_distribution<double>(std::max(1e-3, now_rate))(program.random);
    if (t > kRun) return program;
    program.births.push_back(t);
    program.alive.push_back(true);
    if (!pattern.keep(&program, program.births.size() - 1, t)) program.births.pop_back(), program.alive.pop_back();
  }
}

Evidence EvidenceOf(const Program& program) {
  Evidence evidence;
  evidence.run_seconds = evidence.end_seconds = kRun;
  evidence.begin_seconds = evidence.first_allocation_seconds = program.births.front();
  evidence.last_allocation_seconds = program.births.back();
  evidence.allocations = program.births.size();
  evidence.windows_measured = evidence.application_site = true;
  const double window = (kRun - evidence.begin_seconds) / kWindows;
  for (size_t i = 0; i < program.births.size(); ++i) {
    const size_t k = std::min(kWindows - 1, static_cast<size_t>((program.births[i] - evidence.begin_seconds) / window));
    evidence.windows[k].allocated += 1;
    if (!program.alive[i]) continue;
    evidence.windows[k].survivors += 1;
    evidence.windows[k].survivor_blocks += 1;
    evidence.windows[k].survivor_bytes += 1999;
    evidence.live_blocks += 1;
    evidence.live_bytes += 1999;
  }
  return evidence;
}

TEST(Verdict, EveryPatternGetsItsWordAtEveryRate) {
  for (const Pattern& pattern : kPatterns) {
    for (double rate : {50.0, 500.0}) {
      for (bool waving : {false, true}) {
        for (unsigned seed = 0; seed < 10; ++seed) {
          const Evidence evidence = EvidenceOf(Simulate(pattern, rate, waving, seed));
          const Judgement judgement = Judge(evidence);
          EXPECT_STREQ(VerdictName(judgement.verdict), VerdictName(pattern.expected))
              << pattern.name << ", rate " << rate << (waving ? ", waving" : "") << ", seed " << seed << ": "
              << testing::PrintToString(judgement.evidence);
          EXPECT_FALSE(judgement.evidence.empty());
        }
      }
    }
  }
}

// One of 999 things at a time: known, or kept from now on.
Evidence Memoized(double rate) {
  Program program(1);
  std::vector<bool> known(999);
  for (double t = 0; t < kRun; t += 1 / rate) {
    const auto thing = static_cast<size_t>(program.Uniform() * 999);
    if (known[thing]) continue;
    known[thing] = true;
    program.births.push_back(t);
    program.alive.push_back(true);
  }
  return EvidenceOf(program);
}

TEST(Verdict, ATableThatFillsUpWhileTheProgramWorksOnIsBounded) {
  for (double rate : {20.0, 70.0}) {
    Evidence evidence = Memoized(rate);
    evidence.turns_of_thirds = {999, 999, 999};
    EXPECT_EQ(Judge(evidence).verdict, Verdict::kBounded) << rate;
    evidence.turns_of_thirds = {999, 500, 199};  // its load falls: a leak would do the same
    EXPECT_EQ(Judge(evidence).verdict, rate == 20 ? Verdict::kGrowing : Verdict::kBounded) << rate;
  }
  Evidence leak = EvidenceOf(Simulate(kPatterns[1], 50, true, 1));
  leak.turns_of_thirds = {999, 999, 999};
  EXPECT_EQ(Judge(leak).verdict, Verdict::kGrowing);
  leak.turns_of_thirds = {99, 300, 999};  // ever more turns are no less of a leak
  EXPECT_EQ(Judge(leak).verdict, Verdict::kGrowing);
}

TEST(Verdict, ALeakHasItsRate) {
  const Judgement judgement = Judge(EvidenceOf(Simulate(kPatterns[0], 50, false, 1)));
  EXPECT_EQ(judgement.confidence, Confidence::kHigh);
  EXPECT_NEAR(static_cast<double>(judgement.rate.bytes_per_second), 50 * 1999, 8000);
}

TEST(Verdict, TheRateSaysWhereItWasMeasured) {
  const Judgement judgement = Judge(EvidenceOf(Simulate(kPatterns[0], 50, false, 1)));
  EXPECT_NEAR(judgement.rate.blocks_per_second, 50, 4);
  EXPECT_LT(judgement.rate.from_seconds, 1);
  EXPECT_EQ(judgement.rate.until_seconds, kRun);
  EXPECT_EQ(Judge(EvidenceOf(Simulate(kPatterns[2], 50, false, 1))).rate.bytes_per_second, 0) << "a ring";
}

TEST(Verdict, WithoutAFullGcSurvivorsMayBeGarbage) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[0], 50, false, 1));
  evidence.owned_by_collector = true;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("no full GC"));

  evidence.survived_gcs = {0, 0, 1};
  evidence.last_gc_seconds = 20;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("the last full GC was at 20.0 s"));

  evidence.seen_by_gc = true;
  evidence.survived_gcs = {1, 4, 9};
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kGrowing);
}

// What was allocated in the first `seconds` of the run, all of it kept.
Evidence SilentSince(double seconds) {
  Evidence evidence;
  evidence.run_seconds = evidence.end_seconds = kRun;
  evidence.first_allocation_seconds = evidence.begin_seconds = 1;
  evidence.last_allocation_seconds = seconds;
  evidence.longest_pause_seconds = 0.5;
  evidence.windows_measured = evidence.application_site = true;
  for (size_t i = 0; i < kWindows; ++i) {
    if (static_cast<double>(i) * kRun / kWindows < seconds) evidence.windows[i] = {20, 20, 20, 40000};
    evidence.live_blocks += evidence.windows[i].survivors;
  }
  return evidence;
}

TEST(Verdict, ALeakThatStopsIsNotGrowing) {
  Evidence evidence = SilentSince(70);
  evidence.activity_after = Activity::kActive;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kStartup);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("nothing in the 30.0 s since"));
}

TEST(Verdict, ALeakWhoseLoadHasEndedIsStillOne) {
  Evidence evidence = SilentSince(70);
  evidence.activity_after = Activity::kIdle;
  evidence.end_seconds = 70;
  for (Window& window : evidence.windows) window = {20, 20, 20, 40000};
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kGrowing);
  EXPECT_EQ(Judge(evidence).confidence, Confidence::kLow);
  EXPECT_THAT(Judge(evidence).evidence.back(), testing::HasSubstr("the program was idle"));
}

TEST(Verdict, AShortTimeOfWorkBeforeALongIdleOneIsAStart) {
  Evidence evidence = SilentSince(15);
  evidence.activity_after = Activity::kIdle;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kStartup);
}

TEST(Verdict, SilenceThatIsNoLongerThanUsualIsNoStop) {
  Evidence evidence = SilentSince(70);
  evidence.longest_pause_seconds = 20;
  evidence.activity_after = Activity::kActive;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kGrowing) << "a job that runs now and then";
}

TEST(Verdict, OfAQueueOrALargeCacheItIsSaidThatTheyLookTheSame) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[1], 50, false, 1));
  for (size_t i = 0; i < kWindows; ++i) {
    evidence.windows[i].allocated = 20;
    evidence.windows[i].survivors = evidence.windows[i].survivor_blocks = i < kWindows / 2 ? 0 : 20;
  }
  const Judgement judgement = Judge(evidence);
  EXPECT_EQ(judgement.verdict, Verdict::kBounded);
  EXPECT_EQ(judgement.confidence, Confidence::kLow);
  EXPECT_EQ(judgement.evidence.size(), 2);
}

Evidence FewBlocks(const std::vector<size_t>& windows, uint64_t bytes) {
  Evidence evidence;
  evidence.run_seconds = evidence.end_seconds = kRun;
  evidence.last_allocation_seconds = 90;
  evidence.longest_pause_seconds = 30;
  for (size_t k : windows) evidence.windows[k] = {1, 1, 1, bytes};
  evidence.live_blocks = evidence.allocations = windows.size();
  return evidence;
}

struct Third {
  size_t allocated, survivors;
};
// The third's numbers are dealt out to its windows, one after the other.
Evidence OfThirds(const std::vector<Third>& thirds) {
  Evidence evidence = FewBlocks({}, 0);
  evidence.windows_measured = evidence.application_site = true;
  for (size_t third = 0; third < thirds.size(); ++third) {
    for (size_t i = 0; i < thirds[third].allocated; ++i) {
      Window& window = evidence.windows[third * kThird + i % kThird];
      window.allocated += 1;
      if (i >= thirds[third].survivors) continue;
      window.survivors += 1;
      window.survivor_blocks += 1;
      window.survivor_bytes += 9001;
      evidence.live_blocks += 1;
    }
    evidence.allocations += thirds[third].allocated;
  }
  return evidence;
}

TEST(Verdict, FewBlocksOfACacheAreNoLeak) {
  const Judgement random_eviction = Judge(OfThirds({{33, 13}, {34, 15}, {34, 17}}));  // 50 entries, met 101
  EXPECT_EQ(random_eviction.verdict, Verdict::kNew);
  EXPECT_THAT(random_eviction.evidence.front(), testing::HasSubstr("fewer of the old"));
  const Judgement often_asked_for = Judge(OfThirds({{60, 14}, {63, 7}, {66, 4}}));
  EXPECT_EQ(often_asked_for.verdict, Verdict::kNew);
  EXPECT_THAT(often_asked_for.evidence.front(), testing::HasSubstr("ever fewer"));
  EXPECT_EQ(Judge(OfThirds({{230, 30}, {220, 2}, {217, 7}})).verdict, Verdict::kNew) << "with a few newcomers";
}

TEST(Verdict, AsFewOfALeakAreOne) {
  EXPECT_EQ(Judge(OfThirds({{14, 14}, {12, 12}, {10, 10}})).verdict, Verdict::kGrowing) << "all stay";
  EXPECT_EQ(Judge(OfThirds({{30, 15}, {30, 14}, {30, 15}})).verdict, Verdict::kGrowing) << "the half of them stay";
  EXPECT_EQ(Judge(OfThirds({{200, 6}, {200, 8}, {200, 5}})).verdict, Verdict::kGrowing) << "one in thirty stays";
}

TEST(Verdict, AShortRunIsNotJudged) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[0], 50, false, 1));
  evidence.run_seconds = 0.3;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("too short"));
}

TEST(Verdict, AShortLookAtAProcessThatRunsOnIsDoubtful) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[0], 50, false, 1));
  evidence.runs_on = true;
  evidence.begin_seconds = evidence.end_seconds - 2.1;
  EXPECT_EQ(Judge(evidence).confidence, Confidence::kLikely);
  EXPECT_THAT(Judge(evidence).evidence, testing::Not(testing::Contains(testing::HasSubstr("still fills"))));
  evidence.begin_seconds = evidence.end_seconds - 1.9;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kGrowing);
  EXPECT_EQ(Judge(evidence).confidence, Confidence::kLow);
  EXPECT_THAT(Judge(evidence).evidence, testing::Contains(testing::HasSubstr("a cache that still fills")));
  evidence.runs_on = false;
  EXPECT_EQ(Judge(evidence).confidence, Confidence::kLikely) << "it has ended: that is all of it";
}

TEST(Verdict, ThreeLargeBlocksAreNoLeakYetFourAre) {
  EXPECT_EQ(Judge(FewBlocks({1, 8, 15}, 500'021)).verdict, Verdict::kNew);
  const Judgement judgement = Judge(FewBlocks({1, 6, 11, 16}, 500'021));
  EXPECT_EQ(judgement.verdict, Verdict::kGrowing);
  EXPECT_EQ(judgement.confidence, Confidence::kLow);
}

TEST(Verdict, ALittleThatStaysIsNoLeak) {
  EXPECT_EQ(Judge(FewBlocks({1, 6, 11, 16}, 1999)).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(FewBlocks({1, 6, 11, 16}, 1999)).evidence.front(), testing::HasSubstr("too little"));
}

TEST(Verdict, WhatNodeAllocatesWhileItStartsIsStartup) {
  Evidence evidence = FewBlocks({}, 0);
  evidence.live_blocks = evidence.blocks_of_the_start = 500;
  evidence.windows[3].allocated = 20;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kStartup);
}

TEST(Verdict, AddressSpaceIsReserved) {
  Evidence evidence;
  evidence.run_seconds = kRun;
  evidence.reserved_bytes = 1ull << 33;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kReserved);
}

}  // namespace
}  // namespace nodeleak::report
