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
  evidence.windows_measured = true;
  const double window = (kRun - evidence.begin_seconds) / kWindows;
  for (size_t i = 0; i < program.births.size(); ++i) {
    const size_t k = std::min(kWindows - 1, static_cast<size_t>((program.births[i] - evidence.begin_seconds) / window));
    evidence.windows[k].allocated += 1;
    if (!program.alive[i]) continue;
    evidence.windows[k].survivors += 1;
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

TEST(Verdict, ALeakHasItsRate) {
  const Judgement judgement = Judge(EvidenceOf(Simulate(kPatterns[0], 50, false, 1)));
  EXPECT_EQ(judgement.confidence, Confidence::kHigh);
  EXPECT_NEAR(static_cast<double>(judgement.bytes_per_second), 50 * 1999, 8000);
}

TEST(Verdict, WithoutAFullGcSurvivorsMayBeGarbage) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[0], 50, false, 1));
  evidence.owned_by_collector = true;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("no full GC"));

  evidence.blocks_that_met_a_gc = evidence.live_blocks;
  evidence.survived_gcs = {1, 4, 9};
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kGrowing);
}

TEST(Verdict, AShortRunIsNotJudged) {
  Evidence evidence = EvidenceOf(Simulate(kPatterns[0], 50, false, 1));
  evidence.run_seconds = 0.3;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
  EXPECT_THAT(Judge(evidence).evidence.front(), testing::HasSubstr("too short"));
}

TEST(Verdict, AFewLargeBlocksAreNoLeakYet) {
  Evidence evidence;
  evidence.run_seconds = evidence.end_seconds = kRun;
  evidence.last_allocation_seconds = 90;
  for (size_t k : {1u, 8u, 15u}) evidence.windows[k] = {1, 1, 50021};
  evidence.live_blocks = evidence.allocations = 3;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kNew);
}

TEST(Verdict, AddressSpaceIsReserved) {
  Evidence evidence;
  evidence.run_seconds = kRun;
  evidence.reserved_bytes = 1ull << 33;
  EXPECT_EQ(Judge(evidence).verdict, Verdict::kReserved);
}

}  // namespace
}  // namespace nodeleak::report
