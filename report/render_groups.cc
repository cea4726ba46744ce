#include "report/render_groups.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/absl_view.h"
#include "report/render_stack.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

constexpr size_t kEvidenceLines = 5;
constexpr size_t kStacksLookedAt = 200;  // of a group, when equal ones are put together
constexpr int kBytesColumns = 11, kBlocksColumns = 9, kKindColumns = 12, kVerdictColumns = 8;

std::string OriginText(const Origin& origin) {
  const std::string module = ModuleText(origin.module);
  std::string text = origin.function.empty() ? absl::StrCat("code in ", module) : Printable(origin.function);
  if (!origin.function.empty() && !module.empty()) absl::StrAppend(&text, "  in ", module);
  if (!origin.package.empty()) absl::StrAppend(&text, " (", Printable(origin.package), ")");
  return text;
}

std::string SiteText(const Site& site, const std::string& directory, int columns) {
  const std::string package = site.package.empty() ? "" : absl::StrCat("  (", Printable(site.package), ")");
  const std::string function = FitMiddle(Printable(site.function), std::max(16, columns / 2));
  const int left = columns - DisplayWidth(function) - DisplayWidth(package) - 2;
  const std::string location = Location(site.file, site.line, site.column, directory, std::max(12, left));
  return FitEnd(absl::StrCat(function, function.empty() ? "" : "  ", location, package), columns);
}

std::string LikelySentence(const LikelySite& likely, std::optional<uint64_t> error) {
  const absl::string_view mark = View(EstimateMark(error));
  const std::string all = absl::StrCat(mark, Plural(likely.all_objects, "stream"));
  const std::string made = likely.objects == likely.all_objects
                               ? absl::StrCat("all ", all)
                               : absl::StrCat(mark, FormatCount(likely.objects), " of ", all);
  return absl::StrCat("by number: ", made, " of this sort that ", likely.all_objects == 1 ? "is" : "are",
                      " outstanding ", likely.objects == 1 ? "was" : "were", " created there");
}

void WriteHeading(const Group& group, size_t number, uint64_t whole, TextCanvas* out) {
  const std::string verdict = absl::StrCat(VerdictName(group.verdict), " (", ConfidenceName(group.confidence), ")");
  const std::string share = IsBackground(group.kind) ? "" : FormatShare(group.live_bytes, whole);
  std::string line =
      absl::StrCat("#", number, "  ", EstimateText(group.live_bytes, group.live_bytes_error, group.live_blocks));
  if (!share.empty()) absl::StrAppend(&line, ", ", share);
  absl::StrAppend(&line, "  ", KindName(group.kind), "  ", verdict);
  line = FitEnd(line, out->columns());
  out->Line("");
  out->Line(group.verdict == Verdict::kGrowing ? out->Alarm(line) : out->Bold(line));
}

// Stacks that differ only in frames that are folded away look the same: one entry for the reader.
struct ShownStack {
  uint64_t bytes = 0, blocks = 0;
  std::vector<std::string> lines;
};
std::vector<ShownStack> MergeStacks(const Group& group, const std::string& directory, int columns) {
  std::map<std::string, size_t> index_of;
  std::vector<ShownStack> merged;
  for (size_t i = 0; i < std::min(group.stacks.size(), kStacksLookedAt); ++i) {
    std::vector<std::string> lines = RenderStackLines(group.stacks[i].frames, directory, columns);
    const auto [entry, is_new] = index_of.try_emplace(absl::StrJoin(lines, "\n"), merged.size());
    if (is_new) merged.push_back({0, 0, std::move(lines)});
    merged[entry->second].bytes += group.stacks[i].live_bytes;
    merged[entry->second].blocks += group.stacks[i].live_blocks;
  }
  std::stable_sort(merged.begin(), merged.end(),
                   [](const ShownStack& left, const ShownStack& right) { return left.bytes > right.bytes; });
  return merged;
}

// What is not suspect needs one example, not three.
size_t StacksToShow(const Group& group, const TextOptions& options) {
  const size_t most = static_cast<size_t>(std::max(0, options.stacks));
  const bool suspect = group.verdict != Verdict::kStartup && group.verdict != Verdict::kBounded;
  return suspect ? most : std::min<size_t>(most, 1);
}

void WriteStacks(const Group& group, const std::string& directory, const TextOptions& options, TextCanvas* out) {
  const std::vector<ShownStack> stacks = MergeStacks(group, directory, out->columns() - 4);
  const size_t shown = std::min(stacks.size(), StacksToShow(group, options));
  for (size_t i = 0; i < shown; ++i) {
    out->Line(stacks.size() == 1
                  ? "  stack"
                  : absl::StrCat("  stack ", i + 1, " of ", FormatCount(stacks.size()), ": ",
                                 FormatBytes(stacks[i].bytes), " in ", Plural(stacks[i].blocks, "block")));
    for (const std::string& line : stacks[i].lines) out->Line("    " + line);
  }
}

void WriteInFull(const Report& report, const FullGroup& shown, const TextOptions& options, TextCanvas* out) {
  constexpr int kLabel = 11;
  const int columns = out->columns() - kLabel;
  const std::string& directory = report.process.working_directory;
  const Group& group = *shown.group;
  if (group.site.has_value()) out->Line("  site     " + SiteText(*group.site, directory, columns));
  if (group.likely_site.has_value()) {
    out->Line("  likely   " + SiteText(group.likely_site->site, directory, columns));
    out->Wrapped("           ", LikelySentence(*group.likely_site, group.live_bytes_error));
  }
  if (group.origin.has_value()) out->Line("  origin   " + FitMiddle(OriginText(*group.origin), columns));
  const std::string threads = absl::StrJoin(group.threads, ", ");
  if (!threads.empty() && threads != "main") out->Line("  thread   " + FitEnd(Printable(threads), columns));
  for (size_t i = 0; i < std::min(group.evidence.size(), kEvidenceLines); ++i) {
    out->Wrapped(i == 0 ? "  why      " : "           ", Printable(group.evidence[i]));
  }
  if (shown.also_groups != 0) {
    out->Wrapped("  besides  ", absl::StrCat(FormatBytes(shown.also_bytes), " in ", KindName(Kind::kV8Internal), ", ",
                                             Plural(shown.also_groups, "group"), " at the same line"));
  }
  WriteStacks(group, directory, options, out);
}

void WriteTable(const Report& report, const ReadingPlan& plan, TextCanvas* out) {
  if (plan.brief.empty()) return;
  out->Line("");
  out->Line(out->Bold(plan.full.empty() ? "Groups, one line each" : "Smaller or steady groups, one line each"));
  size_t number = plan.full.size();
  for (const Group* group : plan.brief) {
    const std::string before =
        absl::StrCat(PadRight(absl::StrCat("#", ++number), 4),
                     GroupNumbers(group->live_bytes, group->live_blocks, group->kind, group->live_bytes_error),
                     PadRight(VerdictName(group->verdict), kVerdictColumns), "  ");
    out->Line(before + GroupLabel(*group, report.process.working_directory, out->columns() - DisplayWidth(before)));
  }
}

}  // namespace

std::string GroupLabel(const Group& group, const std::string& directory, int columns) {
  if (group.site.has_value()) return SiteText(*group.site, directory, columns);
  if (group.likely_site.has_value()) {
    constexpr char kLikely[] = "likely ";
    return kLikely + SiteText(group.likely_site->site, directory, columns - static_cast<int>(sizeof kLikely - 1));
  }
  if (group.origin.has_value()) return FitMiddle(OriginText(*group.origin), columns);
  return "(no stack)";
}

std::string GroupNumbers(uint64_t bytes, uint64_t blocks, Kind kind, std::optional<uint64_t> error) {
  const absl::string_view mark = View(EstimateMark(error));
  return absl::StrCat(PadLeft(absl::StrCat(mark, FormatBytes(bytes)), kBytesColumns),
                      PadLeft(absl::StrCat(mark, FormatCount(blocks)), kBlocksColumns), "  ",
                      PadRight(KindName(kind), kKindColumns), "  ");
}

void WriteGroups(const Report& report, const ReadingPlan& plan, const TextOptions& options, TextCanvas* out) {
  size_t number = 0;
  for (const FullGroup& shown : plan.full) {
    WriteHeading(*shown.group, ++number, report.totals.live_bytes, out);
    WriteInFull(report, shown, options, out);
  }
  WriteTable(report, plan, out);
  if (plan.hidden_groups == 0) return;
  if (plan.brief.empty()) out->Line("");
  out->Wrapped(
      "", absl::StrCat("… and ", Plural(plan.hidden_groups, "smaller group"), " with ", FormatBytes(plan.hidden_bytes),
                       report.left_out_groups == 0 ? " (--top=0 shows all)" : ""));
}

}  // namespace nodeleak::report
