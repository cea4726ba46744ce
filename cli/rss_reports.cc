#include "cli/rss_reports.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/console.h"
#include "cli/file_names.h"
#include "cli/reporting.h"
#include "recording/byte_source.h"
#include "recording/raw_reader.h"

namespace nodeleak::cli {

std::vector<std::string> RssReportNames(const std::vector<std::string>& reports, bool is_root_command) {
  std::vector<std::string> names;
  for (std::string name : reports) {
    if (name == "-") continue;  // the command itself is writing there
    const bool add_pid = !is_root_command && !absl::StrContains(name, "%p");
    name.insert(ExtensionStart(name), add_pid ? ".%p.rss" : ".rss");
    names.push_back(std::move(name));
  }
  if (names.empty()) names.emplace_back("nodeleak.%n.%p.rss.txt");
  return names;
}

void RssReports::Look(const std::vector<std::string>& recordings) {
  for (const std::string& path : recordings) {
    if (done_.contains(path)) continue;
    absl::StatusOr<recording::FileSource> source = recording::FileSource::Open(path);
    if (!source.ok()) continue;
    absl::StatusOr<recording::Header> header = recording::ReadHeader(*source);
    if (!header.ok() || header->on_rss_crossed_ns == 0) continue;
    done_.insert(path);
    WriteInChild(path, (header->flags & recording::kIsRootCommand) != 0);
  }
}

void RssReports::WriteInChild(const std::string& recording, bool is_root_command) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid < 0) return Say(absl::StrCat("cannot write the report for --on-rss: ", strerror(errno)));
  if (pid != 0) {
    writers_.push_back(pid);
    return;
  }
  Settings settings = settings_;
  settings.reports = RssReportNames(settings_.reports, is_root_command);
  settings.quiet = true;
  settings.fail_on.reset();
  const ReportingOutcome outcome = ReportRecordings({recording}, settings, TextStream::kStderr);
  _exit(outcome.failed ? 1 : 0);
}

void RssReports::Finish() {
  for (const pid_t pid : writers_) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  writers_.clear();
}

}  // namespace nodeleak::cli
