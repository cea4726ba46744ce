// Outside node. From a recording to something a person or a program reads.
//
//   ASSIGN(Recording recording, ReadRecording(path));
//   ASSIGN(Report report, BuildReport(recording, {}));
//   std::cerr << RenderText(report, {});
//
// A recording is untrusted and may be damaged or of a process that still runs: what is known is reported, what is not
// is said (Report::warnings, capabilities). Renderers accept any bytes in the strings of a report.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "recording/recording.h"
#include "report/model.h"
#include "symbolizer/symbolizer.h"

namespace nodeleak::report {

enum class GroupBy : uint8_t { kDefault, kStack, kFunction, kPackage, kKind, kThread };
// The values of --group-by: "site" (the default), "stack", "function", "package", "kind", "thread".
absl::StatusOr<GroupBy> ParseGroupBy(std::string_view text);

struct ReportOptions {
  GroupBy group_by = GroupBy::kDefault;
  uint64_t top = 0;           // groups that are kept; 0: all
  uint64_t min_bytes = 0;     // smaller groups are left out (and counted)
  bool requested_gc = false;  // of a running process: count what the last collection that was asked for freed
  uint64_t max_stacks = 0;    // stacks that are kept in a group, the heaviest; 0: all
  // Where the paths of modules start. "": at our root, or at that of the process where it runs below another one.
  std::string root;
  symbolizer::SymbolizerOptions symbolizer;
};

absl::StatusOr<Report> BuildReport(const recording::Recording& recording, const ReportOptions& options);

std::string RenderJson(const Report& report);

struct TextOptions {
  bool color = false;
  uint64_t top = 20;  // 0: all
  int columns = 100;
  int stacks = 3;  // shown of a group
};
std::string RenderText(const Report& report, const TextOptions& options);

// Every line of every memory picture, for `nodeleak rss`.
std::string RenderMemoryText(const Report& report, const TextOptions& options);
std::string RenderMemoryJson(const Report& report);

// Of a collection that was just asked for (ReportOptions::requested_gc): the answers, what went, what is left.
std::string RenderCollection(const Report& report, const TextOptions& options);
std::string RenderCollectionJson(const Report& report);

// One line "outermost;...;innermost bytes" per stack, as flame graph tools read it.
std::string RenderFolded(const Report& report);

// By name of a format or extension of a file: text|txt, json, folded. Others: a sentence that says which there are.
absl::StatusOr<std::string> Render(const Report& report, std::string_view format, const TextOptions& text_options);

// Every recorded process of one run, for the console.
struct ProcessSummary {
  ProcessInfo process;
  uint64_t outstanding_bytes = 0;  // outside the JavaScript heap
  std::string recording;           // path of the file
  std::string problem;             // why there is no report; then outstanding_bytes is not known
};
ProcessSummary Summarize(const Report& report, std::string recording_path);
// For a process of which a full report is not wanted: only those names are looked up that tell which mappings are
// outstanding memory and which are pages of the JavaScript heap. Several recordings may share a symbolizer, so that
// symbol tables are read once.
ProcessSummary SummarizeRecording(const recording::Recording& recording, std::string recording_path,
                                  symbolizer::Symbolizer* symbolizer);

// The index of the process whose full report is printed: the largest that is not a launcher (npm, npx...), or the
// largest of all when there are only launchers. Empty: -1.
int PickMainProcess(const std::vector<ProcessSummary>& processes);
// `main_process`: the index of the one whose report follows; -1: none does.
std::string RenderSummary(const std::vector<ProcessSummary>& processes, int main_process,
                          const TextOptions& options = {});

}  // namespace nodeleak::report
