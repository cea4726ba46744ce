#include "cli/reporting.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/console.h"
#include "cli/file_names.h"
#include "recording/reader.h"
#include "report/recording_facts.h"
#include "report/report.h"

namespace nodeleak::cli {
namespace {

constexpr uint32_t kShownGroups = 20;  // of a text on a screen; files get all

absl::Status WriteFile(const std::string& path, const std::string& text) {
  FILE* file = fopen(path.c_str(), "we");
  bool written = file != nullptr && fwrite(text.data(), 1, text.size(), file) == text.size();
  int error = errno;
  if (file != nullptr && fclose(file) != 0 && written) {
    written = false;
    error = errno;
  }
  if (written) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write the report ", path, ": ", strerror(error)));
}

std::string Folder(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// For people: without the directory that they are in.
std::string ShownPath(const std::string& path) {
  char directory[4096];
  if (getcwd(directory, sizeof directory) == nullptr) return path;
  std::string prefix = absl::StrCat(directory, "/");
  return absl::StartsWith(path, prefix) ? path.substr(prefix.size()) : path;
}

ProcessName NameOf(const report::ProcessInfo& process) {
  std::string program = process.executable;
  if (program.empty() && !process.command.empty()) program = process.command[0];
  return {process.pid, BaseName(program), process.is_root_command};
}

uint64_t GrowingBytes(const report::Report& report) {
  uint64_t bytes = 0;
  for (const report::Group& group : report.groups)
    if (group.verdict == report::Verdict::kGrowing && !report::IsBackground(group.kind)) bytes += group.live_bytes;
  return bytes;
}

class Reporter {
 public:
  Reporter(const Settings& settings, TextStream stream, std::string root)
      : settings_(settings), stream_(stream), root_(std::move(root)) {}

  ReportingOutcome Run(const std::vector<std::string>& recordings) {
    for (const std::string& path : recordings) Summarize(path, recordings.size() > 1);
    int main_process = report::PickMainProcess(processes_);
    for (size_t i = 0; i < processes_.size(); ++i) ReportProcess(processes_[i], static_cast<int>(i) == main_process);
    if (!settings_.quiet) SayWhereTheRecordingsAre(main_process);
    return outcome_;
  }

 private:
  void Fail(absl::string_view sentence) {
    Say(sentence);
    outcome_.failed = true;
  }

  // Recordings may be large: only the last one is kept.
  const recording::Recording* Load(const std::string& path) {
    if (loaded_path_ == path) return &*loaded_;
    loaded_.reset();
    loaded_path_.clear();
    absl::StatusOr<recording::Recording> read = recording::ReadRecording(path);
    if (!read.ok()) {
      Fail(read.status().message());
      return nullptr;
    }
    loaded_ = *std::move(read);
    loaded_path_ = path;
    return &*loaded_;
  }

  // Of one that is alone only the report tells how much is outstanding.
  void Summarize(const std::string& path, bool is_one_of_several) {
    const recording::Recording* recording = Load(path);
    if (recording == nullptr) return;
    processes_.push_back(is_one_of_several ? report::SummarizeRecording(*recording, path, &symbolizer_)
                                           : report::ProcessSummary{report::DescribeProcess(*recording), 0, path, ""});
  }

  bool WantsReportOf(bool is_main) const {
    return (is_main && !settings_.quiet) || !settings_.reports.empty() || settings_.fail_on.has_value();
  }

  void ReportProcess(report::ProcessSummary& process, bool is_main) {
    if (!WantsReportOf(is_main)) return;
    const recording::Recording* recording = Load(process.recording);
    if (recording == nullptr) return;
    absl::StatusOr<report::Report> report = Build(*recording);
    if (!report.ok())
      return Fail(absl::StrCat("cannot report on ", process.recording, ": ", report.status().message()));
    process = report::Summarize(*report, process.recording);
    if (settings_.fail_on.has_value()) CheckFailOn(*report);
    for (const std::string& destination : settings_.reports) WriteReport(*report, destination, is_main);
    if (is_main && !settings_.quiet) Print(*report, static_cast<int>(&process - processes_.data()));
  }

  absl::StatusOr<report::Report> Build(const recording::Recording& recording) const {
    ProgressLine progress("looking up names");
    report::ReportOptions options;
    options.min_bytes = settings_.min_bytes;
    options.top = settings_.top.value_or(0);
    options.root = root_;
    if (!settings_.group_by.empty()) {
      absl::StatusOr<report::GroupBy> group_by = report::ParseGroupBy(settings_.group_by);
      if (!group_by.ok()) return group_by.status();
      options.group_by = *group_by;
    }
    return report::BuildReport(recording, options);
  }

  void CheckFailOn(const report::Report& report) {
    uint64_t growing = GrowingBytes(report);
    if (growing == 0 || growing < settings_.fail_on->min_bytes) return;
    outcome_.fail_on = true;
    Say(absl::StrCat("--fail-on: ", growing, " bytes of process ", report.process.pid, " are in groups that grow"));
  }

  void WriteReport(const report::Report& report, const std::string& destination, bool is_main) {
    absl::StatusOr<std::string> format = FormatOfReport(destination, settings_.format);
    if (destination == "-") {
      if (is_main) ToStdout(Rendered(report, *format, settings_.top.value_or(kShownGroups), UseColor(STDOUT_FILENO)));
      return;
    }
    std::string path = ExpandFileName(destination, NameOf(report.process), processes_.size() > 1);
    absl::Status written = WriteFile(path, Rendered(report, *format, settings_.top.value_or(0), false));
    if (!written.ok()) Fail(written.message());
  }

  std::string Rendered(const report::Report& report, const std::string& format, uint64_t top, bool color) {
    report::TextOptions options;
    options.top = top;
    options.color = color;
    absl::StatusOr<std::string> text = report::Render(report, format, options);
    if (text.ok()) return *std::move(text);
    Fail(text.status().message());
    return "";
  }

  void ToStdout(const std::string& text) {
    if (absl::Status written = WriteToStdout(text); !written.ok()) Fail(written.message());
  }

  void ToStderr(const std::string& text) {
    if (!WriteToStderr(text)) outcome_.failed = true;
  }

  bool StdoutIsTaken() const {
    for (const std::string& destination : settings_.reports)
      if (destination == "-") return true;
    return false;
  }

  void Print(const report::Report& report, int main_process) {
    if (processes_.size() > 1) {
      report::TextOptions options;
      options.color = UseColor(STDERR_FILENO);
      std::vector<report::ProcessSummary> shown = processes_;
      for (report::ProcessSummary& process : shown) process.recording = ShownPath(process.recording);
      ToStderr(report::RenderSummary(shown, main_process, options) + "\n");
    }
    if (StdoutIsTaken()) return;
    uint64_t top = settings_.top.value_or(kShownGroups);
    if (stream_ == TextStream::kStderr && settings_.format == "text") {
      ToStderr(Rendered(report, settings_.format, top, UseColor(STDERR_FILENO)));
    } else {
      if (settings_.format != "text") top = settings_.top.value_or(0);
      ToStdout(Rendered(report, settings_.format, top, UseColor(STDOUT_FILENO)));
    }
  }

  void SayWhereTheRecordingsAre(int main_process) {
    for (const report::ProcessSummary& process : processes_)
      if (process.process.ending == report::Ending::kRunning && !process.process.is_copy)
        Say(absl::StrCat("process ", process.process.pid, " still runs; read ", ShownPath(process.recording),
                         " again later"));
    if (stream_ == TextStream::kStdout || main_process < 0) return;
    std::string path = ShownPath(processes_[static_cast<size_t>(main_process)].recording);
    const std::string again = absl::StrCat("(read it again with: nodeleak report ", path, ")\n");
    const std::string line = absl::StrCat("recording: ", path, " ", again);
    const bool fits = line.size() <= static_cast<size_t>(report::TextOptions().columns) + 1;
    ToStderr(fits ? line : absl::StrCat("recording: ", path, "\n  ", again));
  }

  const Settings& settings_;
  symbolizer::Symbolizer symbolizer_;  // of summaries
  const TextStream stream_;
  const std::string root_;
  std::vector<report::ProcessSummary> processes_;
  std::string loaded_path_;
  std::optional<recording::Recording> loaded_;
  ReportingOutcome outcome_;
};

}  // namespace

ReportingOutcome ReportRecordings(const std::vector<std::string>& recordings, const Settings& settings,
                                  TextStream stream, const std::string& root) {
  return Reporter(settings, stream, root).Run(recordings);
}

absl::Status CheckReportFolders(const Settings& settings) {
  for (const std::string& destination : settings.reports) {
    std::string folder = Folder(destination);
    if (destination == "-" || absl::StrContains(folder, "%") || access(folder.c_str(), W_OK | X_OK) == 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write the report ", destination, ": ", strerror(errno), " (", folder, ")"));
  }
  return absl::OkStatus();
}

}  // namespace nodeleak::cli
