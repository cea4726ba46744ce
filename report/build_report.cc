#include "report/build_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "recording/process.h"
#include "report/absl_view.h"
#include "report/answers.h"
#include "report/external_memory.h"
#include "report/garbage.h"
#include "report/grouping.h"
#include "report/kind_verdicts.h"
#include "report/likely_sites.h"
#include "report/memory_lines.h"
#include "report/older_buffers.h"
#include "report/outlook.h"
#include "report/reading_order.h"
#include "report/recording_facts.h"
#include "report/threads.h"
#include "report/uses.h"
#include "report/waterfall.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

using KindTable = std::array<KindTotal, static_cast<size_t>(Kind::kCount)>;

KindTable EmptyKinds() {
  KindTable kinds;
  for (size_t i = 0; i < kinds.size(); ++i) kinds[i].kind = static_cast<Kind>(i);
  return kinds;
}
std::vector<KindTotal> HeaviestFirst(const KindTable& table) {
  std::vector<KindTotal> kinds;
  for (const KindTotal& total : table) {
    if (total.live_blocks != 0) kinds.push_back(total);
  }
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const KindTotal& left, const KindTotal& right) { return left.live_bytes > right.live_bytes; });
  return kinds;
}

std::vector<KindTotal> SumKinds(const std::vector<ClassifiedUse>& uses) {
  KindTable kinds = EmptyKinds();
  for (const ClassifiedUse& use : uses) {
    KindTotal& total = kinds[static_cast<size_t>(use.kind)];
    total.live_bytes += use.use->live_bytes;
    total.live_blocks += use.use->live_blocks;
  }
  return HeaviestFirst(kinds);
}

std::vector<ThreadTotal> SumThreads(const Recording& recording, const std::vector<ClassifiedUse>& uses,
                                    const std::vector<std::string>& thread_names) {
  std::map<std::string, ThreadTotal> by_name;
  for (const ClassifiedUse& use : uses) {
    if (IsBackground(use.kind) || use.use->live_blocks == 0) continue;
    const uint32_t thread = recording.stacks[use.use->stack].thread;
    const std::string name = thread < thread_names.size() ? thread_names[thread] : "unknown";
    ThreadTotal& total = by_name[name];
    total.name = name;
    total.live_bytes += use.use->live_bytes;
    total.live_blocks += use.use->live_blocks;
  }
  std::vector<ThreadTotal> totals;
  totals.reserve(by_name.size());
  for (auto& [name, total] : by_name) totals.push_back(std::move(total));
  std::stable_sort(totals.begin(), totals.end(), [](const ThreadTotal& left, const ThreadTotal& right) {
    return left.live_bytes > right.live_bytes;
  });
  return totals;
}

uint64_t SumErrors(const std::vector<ClassifiedUse>& uses) {
  double variance = 0;
  for (const ClassifiedUse& use : uses) variance += IsBackground(use.kind) ? 0 : use.use->variance;
  return SamplingError(variance);
}

Totals SumTotals(const Recording& recording, const std::vector<KindTotal>& kinds) {
  Totals totals;
  for (const KindTotal& total : kinds) {
    if (IsBackground(total.kind)) continue;
    totals.live_bytes += total.live_bytes;
    totals.live_blocks += total.live_blocks;
  }
  for (const recording::Stack& stack : recording.stacks) {
    if ((stack.flags & recording::kStackMapping) != 0) continue;  // reservations of address space would drown the rest
    totals.allocated_bytes += stack.allocated_bytes;
    totals.allocations += stack.allocated_blocks;
  }
  totals.stacks = recording.stacks.size() - 1;  // stack 0 is "unknown"
  totals.major_gcs = recording.totals.major_gcs;
  totals.lost = SumLosses(recording);
  const bool attached = (recording.process.flags & recording::kIsAttached) != 0;
  // A sampled recording does not know most blocks.
  if (attached && recording.process.sample_bytes == 0) totals.unknown_frees = recording.totals.unknown_frees;
  return totals;
}

// --- timeline: samples are many and know no kinds, checkpoints are few and do

// What is alive of each kind, from checkpoint to checkpoint.
class KindsOverTime {
 public:
  KindsOverTime(const Recording& recording, const std::vector<Kind>& kind_of_stack)
      : recording_(recording), kind_of_stack_(kind_of_stack), live_of_stack_(recording.stacks.size()) {}

  std::vector<KindTotal> At(const recording::Checkpoint& checkpoint) {
    for (uint64_t i = 0; i < checkpoint.entry_count; ++i) {
      const recording::CheckpointEntry& entry = recording_.checkpoint_entries[checkpoint.first_entry + i];
      // Of mappings a checkpoint knows what was mapped, not what was unmapped.
      if ((recording_.stacks[entry.stack].flags & recording::kStackMapping) != 0) continue;
      Live& live = live_of_stack_[entry.stack];
      KindTotal& total = kinds_[static_cast<size_t>(kind_of_stack_[entry.stack])];
      total.live_bytes += entry.live_bytes - std::exchange(live.bytes, entry.live_bytes);
      total.live_blocks += entry.live_blocks - std::exchange(live.blocks, entry.live_blocks);
    }
    return HeaviestFirst(kinds_);
  }

 private:
  struct Live {
    uint64_t bytes = 0, blocks = 0;
  };
  const Recording& recording_;
  const std::vector<Kind>& kind_of_stack_;
  std::vector<Live> live_of_stack_;
  KindTable kinds_ = EmptyKinds();
};

TimelinePoint PointOf(const recording::TimelineSample& sample) {
  TimelinePoint point;
  point.t_seconds = static_cast<double>(sample.time_ns) / 1e9;
  point.rss_bytes = sample.rss_bytes;
  point.live_bytes = sample.live_bytes;
  point.heap_used = sample.heap_used;
  point.major_gcs = sample.mark_compacts;
  return point;
}

std::vector<TimelinePoint> MakeTimeline(const Recording& recording, const std::vector<ClassifiedUse>& uses) {
  std::vector<Kind> kind_of_stack(recording.stacks.size(), Kind::kNative);
  for (const ClassifiedUse& use : uses) {
    if (use.use->owns_counters) kind_of_stack[use.use->stack] = use.kind;
  }
  std::vector<TimelinePoint> points;
  points.reserve(recording.timeline.size());
  for (const recording::TimelineSample& sample : recording.timeline) points.push_back(PointOf(sample));
  KindsOverTime kinds(recording, kind_of_stack);
  for (const recording::Checkpoint& checkpoint : recording.checkpoints) {
    const double seconds = static_cast<double>(checkpoint.time_ns) / 1e9;
    std::vector<KindTotal> now = kinds.At(checkpoint);
    const auto nearest = std::min_element(points.begin(), points.end(), [&](const auto& left, const auto& right) {
      return std::abs(left.t_seconds - seconds) < std::abs(right.t_seconds - seconds);
    });
    if (nearest != points.end()) nearest->by_kind = std::move(now);
  }
  return points;
}

// --- native names

void DescribeNames(const FrameTable& frames, std::vector<Capability>* capabilities) {
  for (const auto& [path, why] : frames.unnamed_modules()) {
    capabilities->push_back({absl::StrCat("names of ", path), CapabilityState::kDegraded, why});
  }
}

// The first ones that a person would read, in the order of the contract.
void KeepTop(const ReportOptions& options, Report* report) {
  if (options.top == 0 && options.min_bytes == 0) return;
  std::vector<const Group*> in_reading_order;
  for (const Group& group : report->groups) in_reading_order.push_back(&group);
  SortForReading(&in_reading_order);
  std::vector<bool> kept(report->groups.size());
  uint64_t count = 0;
  for (const Group* group : in_reading_order) {
    if (group->live_bytes < options.min_bytes || (options.top != 0 && count == options.top)) continue;
    kept[static_cast<size_t>(group - report->groups.data())] = true;
    ++count;
  }
  std::vector<Group> groups;
  for (size_t i = 0; i < report->groups.size(); ++i) {
    Group& group = report->groups[i];
    if (kept[i]) {
      groups.push_back(std::move(group));
    } else {
      report->left_out_groups += 1;
      report->left_out_bytes += IsBackground(group.kind) ? 0 : group.live_bytes;
    }
  }
  report->groups = std::move(groups);
}

// What a requested collection freed is no news for whoever reads the recording later.
bool HasFreed(const Recording& recording, const ReportOptions& options) {
  const auto kind = static_cast<recording::ConfirmationKind>(recording.confirmation.kind);
  if (options.requested_gc) return kind == recording::ConfirmationKind::kRequested;
  return kind == recording::ConfirmationKind::kAtEnd && recording.process.gc_at_end == recording::GcAtEnd::kDone;
}

void SumFreed(const Recording& recording, const std::vector<ClassifiedUse>& uses, Report* report) {
  uint64_t garbage_bytes = 0;
  for (const ClassifiedUse& use : uses) {
    if (IsBackground(use.kind)) continue;
    garbage_bytes += use.use->garbage_bytes;
    report->pending_bytes += use.use->pending_bytes;
  }
  report->garbage_bytes = garbage_bytes;
  report->turns_at_end = recording.confirmation.turns;
}

struct GroupByName {
  const char* name;
  GroupBy value;
};
constexpr GroupByName kGroupByNames[] = {{"site", GroupBy::kDefault},      {"stack", GroupBy::kStack},
                                         {"function", GroupBy::kFunction}, {"package", GroupBy::kPackage},
                                         {"kind", GroupBy::kKind},         {"thread", GroupBy::kThread}};

}  // namespace

absl::StatusOr<GroupBy> ParseGroupBy(std::string_view text) {
  for (const GroupByName& row : kGroupByNames) {
    if (text == row.name) return row.value;
  }
  return absl::InvalidArgumentError(absl::StrCat("cannot group by \"", View(text),
                                                 "\": there are site (the default), stack, function, package, kind and "
                                                 "thread"));
}

absl::StatusOr<Report> BuildReportWithNames(const Recording& recording, const ReportOptions& options,
                                            const NativeNames& names) {
  if (recording.stacks.empty()) return absl::InvalidArgumentError("cannot report on a recording without stacks");
  const FrameTable frames(recording, names, options.root);
  Packages packages(options.root);
  std::vector<Use> uses = CollectUses(recording);
  const bool has_freed = HasFreed(recording, options);
  if (has_freed) AddFreed(recording, &uses);
  std::vector<ClassifiedUse> classified = ClassifyUses(&uses, frames, &packages);
  const std::vector<std::string> thread_names = ThreadNames(recording, frames);

  Report report;
  report.reserved_bytes = SetAsideReservations(RssOf(recording), &classified);
  report.process = DescribeProcess(recording);
  report.capabilities = DescribeCapabilities(recording);
  DescribeNames(frames, &report.capabilities);
  report.kinds = SumKinds(classified);
  report.totals = SumTotals(recording, report.kinds);
  report.rss_bytes = RssOf(recording);
  report.memory = DescribeMemory(recording, report.kinds, report.reserved_bytes);
  AddPictures(recording, classified, &report);
  report.timeline = MakeTimeline(recording, classified);
  report.groups = MakeGroups(recording, classified, frames, thread_names, options);
  AddLikelySites(&report.groups);
  report.kind_verdicts = JudgeKinds(recording, report.kinds, report.process.command, &report.groups);
  AddOutlook(&report);
  report.external = CheckExternalMemory(recording, report.groups, report.memory);
  report.older_buffers = DescribeOlderBuffers(recording);
  report.threads = SumThreads(recording, classified, thread_names);
  KeepTop(options, &report);
  report.warnings = DescribeTroubles(recording);
  if (has_freed) SumFreed(recording, classified, &report);
  if (options.requested_gc) report.answers = DescribeAnswers(recording, thread_names);
  report.sample_bytes = recording.process.sample_bytes;
  report.sample_automatic = (recording.process.flags & recording::kSampleAutomatic) != 0;
  if (report.sample_bytes != 0) report.totals.live_bytes_error = SumErrors(classified);
  return report;
}

absl::StatusOr<Report> BuildReport(const Recording& recording, const ReportOptions& options) {
  symbolizer::Symbolizer symbolizer(options.symbolizer);
  ReportOptions with_root = options;
  if (with_root.root.empty())
    with_root.root = recording::RootOfProcess(recording.process.pid, recording.process.process_start_ticks);
  return BuildReportWithNames(recording, with_root, NamesFrom(&symbolizer));
}

}  // namespace nodeleak::report
