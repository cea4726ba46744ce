// Every process of a run on one screen, and which of them the full report is about.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "report/process_text.h"
#include "report/report.h"
#include "report/text_canvas.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

constexpr int kPidColumns = 8;
constexpr int kBytesColumns = 12;
constexpr int kEndingColumns = 24;

std::string Row(const ProcessSummary& summary, int columns) {
  const std::string bytes = summary.problem.empty() ? FormatBytes(summary.outstanding_bytes) : "-";
  const std::string fixed =
      absl::StrCat(PadLeft(absl::StrCat(summary.process.pid), kPidColumns), PadLeft(bytes, kBytesColumns), "  ",
                   PadRight(summary.problem.empty() ? EndingText(summary.process) : "", kEndingColumns), "  ");
  const int left = columns - DisplayWidth(fixed);
  const int command_columns = left * 55 / 100;
  return absl::StrCat(fixed, PadRight(CommandText(summary.process), command_columns), "  ",
                      FitMiddle(Printable(summary.recording), left - command_columns - 2));
}

bool Outranks(const ProcessSummary& left, const ProcessSummary& right) {
  if (left.problem.empty() != right.problem.empty()) return left.problem.empty();
  if (left.process.is_launcher != right.process.is_launcher) return !left.process.is_launcher;
  return left.outstanding_bytes > right.outstanding_bytes;
}

}  // namespace

ProcessSummary Summarize(const Report& report, std::string recording_path) {
  ProcessSummary summary;
  summary.process = report.process;
  summary.recording = std::move(recording_path);
  summary.outstanding_bytes = report.totals.live_bytes;
  return summary;
}

int PickMainProcess(const std::vector<ProcessSummary>& processes) {
  const auto best = std::min_element(processes.begin(), processes.end(), Outranks);
  return best == processes.end() ? -1 : static_cast<int>(best - processes.begin());
}

std::string RenderSummary(const std::vector<ProcessSummary>& processes, int main_process, const TextOptions& options) {
  TextCanvas out(std::max(80, options.columns), options.color);
  const std::string which =
      main_process < 0 || processes.size() < 2
          ? ""
          : absl::StrCat(", the report below is of ", processes[static_cast<size_t>(main_process)].process.pid);
  out.Line(out.Bold(absl::StrCat(FormatCount(processes.size()), processes.size() == 1 ? " process" : " processes",
                                 " recorded", which)));
  out.Line(absl::StrCat(PadLeft("pid", kPidColumns), PadLeft("outstanding", kBytesColumns), "  ",
                        PadRight("ended", kEndingColumns), "  command, recording"));
  for (const ProcessSummary& summary : processes) {
    out.Line(Row(summary, out.columns()));
    if (!summary.problem.empty()) out.Wrapped("          ! ", Printable(summary.problem));
  }
  return out.Take();
}

}  // namespace nodeleak::report
