// The report for a person: ten seconds of summary, then the groups one by one.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/process_text.h"
#include "report/reading_order.h"
#include "report/render_groups.h"
#include "report/render_waterfall.h"
#include "report/report.h"
#include "report/text_canvas.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

constexpr size_t kGrowingInSummary = 5;
constexpr size_t kKindsInSummary = 6;
constexpr size_t kGarbageInSummary = 3;
constexpr size_t kSizesInSummary = 6;
constexpr uint64_t kSmallGarbage = 16 * 1024;     // smaller heaps of garbage are not named
constexpr uint64_t kFewThreadBytes = 128 * 1024;  // V8's own threads always hold a little
constexpr int kNarrowest = 72;

// --- summary

void WriteHeading(const Report& report, TextCanvas* out) {
  const ProcessInfo& process = report.process;
  WriteTitle("nodeleak: ", process, out);
  std::vector<std::string> facts;
  if (!process.node_version.empty()) facts.push_back(absl::StrCat("node ", Printable(process.node_version)));
  if (!process.is_node) facts.push_back("not a node program");
  facts.push_back(absl::StrCat(process.ending == Ending::kRunning || process.is_attached ? "recorded " : "ran ",
                               FormatSeconds(process.duration_seconds)));
  facts.push_back(EndingText(process));
  if (report.rss_bytes != 0) facts.push_back(absl::StrCat("RSS ", FormatBytes(report.rss_bytes)));
  if (report.totals.major_gcs != 0) facts.push_back(Plural(report.totals.major_gcs, "full GC"));
  out->Wrapped("  ", absl::StrJoin(facts, ", "));
}

size_t CountSites(const std::vector<const Group*>& groups) {
  std::set<std::string> sites;
  for (const Group* group : groups) {
    const Site* site = SiteOrLikelySite(*group);
    sites.insert(site != nullptr ? absl::StrCat(site->file, ":", site->line) : group->id);
  }
  return sites.size();
}

const KindVerdict* GrowingHeap(const Report& report) {
  for (const KindVerdict& judged : report.kind_verdicts) {
    if (judged.kind == Kind::kV8Heap && judged.verdict == Verdict::kGrowing) return &judged;
  }
  return nullptr;
}

void WriteOutlook(const Report& report, TextCanvas* out) {
  if (!report.outlook.seconds_until_limit.has_value()) return;
  out->Wrapped("", absl::StrCat("At this rate the container's limit of ", FormatBytes(report.memory.limit_bytes), " (",
                                FormatBytes(report.memory.limit_used_bytes), " in use) is reached in ",
                                FormatSeconds(*report.outlook.seconds_until_limit)));
}

void WriteGrowing(const Report& report, const std::vector<const Group*>& growing, TextCanvas* out) {
  uint64_t bytes = 0, per_second = 0;
  for (const Group* group : growing) {
    bytes += group->live_bytes;
    per_second += group->rate.bytes_per_second;
  }
  out->Line("");
  const KindVerdict* heap = GrowingHeap(report);
  if (heap != nullptr) {
    out->Line(out->Alarm(absl::StrCat("The JavaScript heap itself grows, about ",
                                      FormatBytes(heap->rate.bytes_per_second), " per second")));
    for (const std::string& sentence : heap->evidence) out->Wrapped("  ", sentence);
    out->Wrapped("  ", Printable(heap->advice));
  }
  if (growing.empty()) {
    out->Line(out->Bold(heap == nullptr ? "Nothing is seen to grow." : "Outside of it nothing is seen to grow."));
    const Lost& lost = report.totals.lost;
    if (lost.blocks + lost.stacks != 0) out->Line("But not all could be recorded: see the lines with ! below.");
    WriteOutlook(report, out);
    return;
  }
  out->Line(out->Alarm(absl::StrCat("Growing: ", FormatBytes(bytes), " at ", Plural(CountSites(growing), "site"),
                                    ", about ", FormatBytes(per_second), " per second")));
  const size_t shown = std::min(growing.size(), kGrowingInSummary);
  for (size_t i = 0; i < shown; ++i) {
    const Group& group = *growing[i];
    const std::string numbers = absl::StrCat("  ", PadLeft(FormatBytes(group.live_bytes), 10),
                                             PadLeft(absl::StrCat(FormatBytes(group.rate.bytes_per_second), "/s"), 14),
                                             "  ", PadRight(KindName(group.kind), 12), "  ");
    out->Line(numbers + GroupLabel(group, report.process.working_directory, out->columns() - DisplayWidth(numbers)));
  }
  if (growing.size() > shown) out->Line(absl::StrCat("  … and ", FormatCount(growing.size() - shown), " smaller"));
  WriteOutlook(report, out);
}

std::string KindList(const Report& report) {
  std::vector<std::string> parts;
  uint64_t rest = 0;
  for (const KindTotal& total : report.kinds) {
    if (IsBackground(total.kind) || total.live_bytes == 0) continue;
    if (parts.size() == kKindsInSummary) {
      rest += total.live_bytes;
    } else {
      parts.push_back(absl::StrCat(KindName(total.kind), " ", FormatBytes(total.live_bytes)));
    }
  }
  if (rest != 0) parts.push_back(absl::StrCat("others ", FormatBytes(rest)));
  return absl::StrJoin(parts, ", ");
}

// Of V8's pages the part that is resident, where V8 said so: it maps far more than it touches.
std::string HeapText(const Report& report) {
  for (const MemoryLine& line : report.memory.lines) {
    if (line.name == kJsHeapLine) return FormatBytes(line.touched_bytes.value_or(line.bytes)) + " of JavaScript heap";
  }
  for (const KindTotal& total : report.kinds) {
    if (total.kind == Kind::kV8Heap) return FormatBytes(total.live_bytes) + " of pages of the JavaScript heap";
  }
  return "";
}

void WriteBackground(const Report& report, TextCanvas* out) {
  std::vector<std::string> parts;
  if (std::string heap = HeapText(report); !heap.empty()) parts.push_back(std::move(heap));
  for (const KindTotal& total : report.kinds) {
    if (total.kind != Kind::kThreadStack || total.live_bytes == 0) continue;
    parts.push_back(absl::StrCat(FormatBytes(total.live_bytes), " of thread stacks (mostly untouched)"));
  }
  if (report.reserved_bytes != 0) {
    parts.push_back(absl::StrCat(FormatBytes(report.reserved_bytes), " of reserved address space (no memory)"));
  }
  if (!parts.empty()) out->Wrapped("  not counted: ", absl::StrJoin(parts, ", "));
}

void WriteThread(const ThreadTotal& thread, TextCanvas* out) {
  const std::string numbers =
      absl::StrCat(PadLeft(FormatBytes(thread.live_bytes), 12), PadLeft(FormatCount(thread.live_blocks), 9), "  ");
  out->Line(numbers + FitEnd(Printable(thread.name), out->columns() - DisplayWidth(numbers)));
}

// Named, so that nobody looks for a leak where only the collector was late.
void WriteGarbage(const Report& report, TextCanvas* out) {
  std::vector<const Group*> garbage;
  for (const Group& group : report.groups) {
    // Of the sum above them only: pages of the JavaScript heap are not in it.
    if (!IsBackground(group.kind) && FreedBytes(group) >= kSmallGarbage) garbage.push_back(&group);
  }
  std::stable_sort(garbage.begin(), garbage.end(),
                   [](const Group* left, const Group* right) { return FreedBytes(*left) > FreedBytes(*right); });
  for (size_t i = 0; i < std::min(garbage.size(), kGarbageInSummary); ++i) {
    const Group& group = *garbage[i];
    const std::string numbers =
        " " + GroupNumbers(FreedBytes(group), group.garbage_blocks + group.pending_blocks, group.kind);
    out->Line(numbers + GroupLabel(group, report.process.working_directory, out->columns() - DisplayWidth(numbers)));
  }
}

std::string FreedAtEndText(const Report& report) {
  const std::string garbage =
      absl::StrCat("the full GC at the end freed ", FormatBytes(*report.garbage_bytes), " of garbage");
  if (report.pending_bytes != 0) {
    return absl::StrCat(garbage, ", finalizers after it ", FormatBytes(report.pending_bytes),
                        "; neither is counted here");
  }
  return absl::StrCat(garbage, ", which is not counted here",
                      report.turns_at_end == 0 ? "; this end left no turn of the event loop for finalizers" : "");
}

// Only when there is more to say than "main".
void WriteThreads(const Report& report, TextCanvas* out) {
  const uint64_t small = report.totals.live_bytes / 100;
  uint64_t elsewhere = 0;
  for (const ThreadTotal& thread : report.threads) elsewhere += thread.name == "main" ? 0 : thread.live_bytes;
  if (elsewhere < std::max(small, kFewThreadBytes)) return;
  out->Line("  by the thread that allocated it");
  ThreadTotal others;
  for (const ThreadTotal& thread : report.threads) {
    if (thread.live_bytes < small) {
      others.live_bytes += thread.live_bytes;
      others.live_blocks += thread.live_blocks;
    } else {
      WriteThread(thread, out);
    }
  }
  others.name = "others";
  if (others.live_blocks != 0) WriteThread(others, out);
}

void WriteOutstanding(const Report& report, TextCanvas* out) {
  const Totals& sum = report.totals;
  out->Line("");
  out->Line(absl::StrCat(out->Bold("Outstanding outside the JavaScript heap: "),
                         EstimateText(sum.live_bytes, sum.live_bytes_error, sum.live_blocks)));
  if (sum.live_bytes != 0) out->Wrapped("  ", KindList(report));
  WriteThreads(report, out);
  out->Wrapped("  ", absl::StrCat("allocated in all: ", FormatBytes(report.totals.allocated_bytes), " in ",
                                  Plural(report.totals.allocations, "allocation")));
  if (report.garbage_bytes.has_value()) {
    out->Wrapped("  ", FreedAtEndText(report));
    WriteGarbage(report, out);
  }
  WriteBackground(report, out);
  if (!report.external.has_value()) return;
  for (const std::string& sentence : report.external->sentences) out->Wrapped("  ", Printable(sentence));
}

// Beside what is outstanding since the attach: these have no stack, so they are in no group.
void WriteOlderBuffers(const Report& report, TextCanvas* out) {
  if (!report.older_buffers.has_value()) return;
  const OlderBuffers& older = *report.older_buffers;
  out->Line("");
  if (older.state == CapabilityState::kAbsent)
    return out->Wrapped("", absl::StrCat("ArrayBuffers from before the attach: not known: ", older.why));
  out->Line(absl::StrCat(out->Bold("ArrayBuffers from before the attach: "),
                         EstimateText(older.live_bytes, std::nullopt, older.live_blocks)));
  out->Wrapped("  ", absl::StrCat("by V8's own lists, not counted above, without stacks",
                                  older.freed_blocks == 0 ? "" : "; others were freed since: ",
                                  older.freed_blocks == 0 ? "" : FormatBytes(older.freed_bytes)));
  if (older.state == CapabilityState::kDegraded) out->Wrapped("  ! not all: ", older.why);
  uint64_t rest = older.live_bytes;
  for (size_t i = 0; i < std::min(older.sizes.size(), kSizesInSummary); ++i) {
    const OlderBuffers::Size& size = older.sizes[i];
    rest -= size.live_bytes();
    out->Line(absl::StrCat(PadLeft(FormatBytes(size.live_bytes()), 12), PadLeft(FormatCount(size.live_blocks), 9),
                           "  of ", FormatCount(size.bytes), " bytes"));
  }
  if (older.sizes.size() > kSizesInSummary)
    out->Line(absl::StrCat(PadLeft(FormatBytes(rest), 12), "           of ",
                           Plural(older.sizes.size() - kSizesInSummary, "other size")));
}

void WriteWarnings(const Report& report, TextCanvas* out) {
  std::vector<std::string> limits;
  for (const Capability& capability : report.capabilities) {
    if (capability.state == CapabilityState::kFull || capability.name == "recording") continue;
    if (!report.process.is_node && capability.state == CapabilityState::kAbsent) continue;  // no V8, no wonder
    limits.push_back(absl::StrCat(capability.name, " ", CapabilityStateName(capability.state),
                                  capability.why.empty() ? "" : ": ", capability.why));
  }
  if (report.warnings.empty() && limits.empty()) return;
  out->Line("");
  for (const std::string& limit : limits) out->Wrapped("  ! ", Printable(limit));
  for (const std::string& warning : report.warnings) out->Wrapped("  ! ", Printable(warning));
}

}  // namespace

std::string RenderText(const Report& report, const TextOptions& options) {
  TextCanvas out(std::max(kNarrowest, options.columns), options.color);
  const ReadingPlan plan = PlanReading(report, options.top);
  WriteHeading(report, &out);
  WriteGrowing(report, plan.growing, &out);
  WriteOutstanding(report, &out);
  WriteOlderBuffers(report, &out);
  WriteWaterfall(report, &out);
  WriteWarnings(report, &out);
  WriteGroups(report, plan, options, &out);
  return out.Take();
}

}  // namespace nodeleak::report
