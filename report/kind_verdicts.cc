#include "report/kind_verdicts.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "report/js_heap.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

constexpr uint64_t kGrowingPercent = 10;  // of a kind's bytes in groups that grow make the kind grow
constexpr size_t kVerdicts = static_cast<size_t>(Verdict::kNew) + 1;

std::string SnapshotAdvice(const Recording& recording, const std::vector<std::string>& command) {
  const bool has_signal = std::any_of(command.begin(), command.end(), [](const std::string& argument) {
    return argument == "--heapsnapshot-signal=SIGUSR2";
  });
  if (has_signal) {
    return absl::StrCat("take a heap snapshot, twice with some time between, and compare: kill -USR2 ",
                        recording.process.pid);
  }
  return "take a heap snapshot, twice with some time between, and compare: start it with node "
         "--heapsnapshot-signal=SIGUSR2, then kill -USR2 PID; or with node --heapsnapshot-near-heap-limit=1";
}

struct Shares {
  std::array<uint64_t, kVerdicts> bytes = {};
  uint64_t groups = 0, all = 0;
};
Shares SharesOf(Kind kind, const std::vector<Group>& groups) {
  Shares shares;
  for (const Group& group : groups) {
    if (group.kind != kind || group.live_bytes == 0) continue;
    shares.bytes[static_cast<size_t>(group.verdict)] += group.live_bytes;
    shares.all += group.live_bytes;
    shares.groups += 1;
  }
  return shares;
}

Verdict VerdictOf(const Shares& shares) {
  if (shares.all == 0) return Verdict::kNew;
  const uint64_t growing = shares.bytes[static_cast<size_t>(Verdict::kGrowing)];
  if (growing >= shares.all / 100 * kGrowingPercent && growing != 0) return Verdict::kGrowing;
  return static_cast<Verdict>(std::max_element(shares.bytes.begin(), shares.bytes.end()) - shares.bytes.begin());
}

KindVerdict JudgeByGroups(Kind kind, const std::vector<Group>& groups) {
  const Shares shares = SharesOf(kind, groups);
  KindVerdict judged;
  judged.kind = kind;
  judged.verdict = VerdictOf(shares);
  for (const Group& group : groups) {
    if (group.kind != kind || group.live_bytes == 0 || group.verdict != judged.verdict) continue;
    judged.confidence = std::min(judged.confidence, group.confidence);  // kHigh is the smallest
    if (group.verdict != Verdict::kGrowing) continue;
    GrowthRate& rate = judged.rate;
    rate.from_seconds =
        rate.bytes_per_second == 0 ? group.rate.from_seconds : std::min(rate.from_seconds, group.rate.from_seconds);
    rate.until_seconds = std::max(rate.until_seconds, group.rate.until_seconds);
    rate.bytes_per_second += group.rate.bytes_per_second;
    rate.blocks_per_second += group.rate.blocks_per_second;
  }
  const uint64_t bytes = shares.bytes[static_cast<size_t>(judged.verdict)];
  judged.evidence.push_back(absl::StrCat(FormatBytes(bytes), " of ", FormatBytes(shares.all), " in ",
                                         Plural(shares.groups, "group"), " is ", VerdictName(judged.verdict)));
  return judged;
}

// Pages come and go and say little about what is in them: the heaviest group speaks for the heap, no other page grows.
void JudgePages(const KindVerdict& heap, std::vector<Group>* groups) {
  bool is_heaviest = true;
  for (Group& group : *groups) {
    if (group.kind != Kind::kV8Heap || group.live_bytes == 0) continue;
    if (is_heaviest || group.verdict == Verdict::kGrowing) {
      group.verdict = is_heaviest ? heap.verdict : Verdict::kNew;
      group.confidence = is_heaviest ? heap.confidence : Confidence::kLow;
      group.evidence = heap.evidence;
      group.rate = is_heaviest ? heap.rate : GrowthRate{};
    }
    is_heaviest = false;
  }
}

}  // namespace

std::vector<KindVerdict> JudgeKinds(const Recording& recording, const std::vector<KindTotal>& kinds,
                                    const std::vector<std::string>& command, std::vector<Group>* groups) {
  KindVerdict heap = JudgeJsHeap(recording);
  if (heap.verdict == Verdict::kGrowing) heap.advice = SnapshotAdvice(recording, command);
  JudgePages(heap, groups);
  std::vector<KindVerdict> verdicts;
  verdicts.reserve(kinds.size());
  for (const KindTotal& total : kinds) {
    verdicts.push_back(total.kind == Kind::kV8Heap ? heap : JudgeByGroups(total.kind, *groups));
  }
  return verdicts;
}

}  // namespace nodeleak::report
