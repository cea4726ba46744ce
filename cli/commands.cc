#include "cli/commands.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/console.h"
#include "cli/file_names.h"
#include "cli/reporting.h"
#include "cli/rss_reports.h"
#include "tracer/launch.h"
#include "tracer/live_recording.h"

namespace nodeleak::cli {
namespace {

absl::StatusOr<tracer::LaunchOptions> MakeLaunchOptions(const Invocation& invocation) {
  const Settings& settings = invocation.settings;
  char directory[4096] = "";
  if (!absl::StartsWith(settings.output, "/") && getcwd(directory, sizeof directory) == nullptr)
    return absl::UnavailableError(absl::StrCat("cannot tell the current directory, where the recording would go: ",
                                               strerror(errno), "; choose another place with --output=PATH"));
  absl::StatusOr<std::string> shim = tracer::FindShim();
  if (!shim.ok()) return shim.status();
  tracer::LaunchOptions options;
  options.command = invocation.operands;
  options.shim = *std::move(shim);
  options.output_template = RecordingTemplate(settings.output, directory);
  options.max_recording_bytes = settings.max_recording_bytes;
  options.sample_bytes = settings.sample_bytes;
  options.gc_at_end = settings.gc_at_end;
  options.children = settings.children;
  options.on_rss_bytes = settings.on_rss_bytes;
  return options;
}

// A process that restarts itself by exec may name one file twice.
std::vector<std::string> WithoutRepetitions(const std::vector<std::string>& paths) {
  std::set<std::string> seen;
  std::vector<std::string> unique;
  for (const std::string& path : paths)
    if (seen.insert(path).second) unique.push_back(path);
  return unique;
}

}  // namespace

int Trouble(absl::string_view sentence) {
  Say(sentence);
  return kExitTrouble;
}

int Print(absl::string_view text) {
  const absl::Status written = WriteToStdout(text);
  return written.ok() ? 0 : Trouble(written.message());
}

int ExitStatus(const ReportingOutcome& outcome, int command_status) {
  if (command_status != 0) return command_status;
  if (outcome.failed) return kExitTrouble;
  return outcome.fail_on ? kExitFailOn : 0;
}

int RunCommand(const Invocation& invocation) {
  const Settings& settings = invocation.settings;
  if (absl::Status status = CheckReportFolders(settings); !status.ok()) return Trouble(status.message());
  absl::StatusOr<tracer::LaunchOptions> options = MakeLaunchOptions(invocation);
  if (!options.ok()) return Trouble(options.status().message());
  RssReports rss_reports(settings);
  if (settings.on_rss_bytes != 0)
    options->look = [&](const std::vector<std::string>& begun) { rss_reports.Look(begun); };
  absl::StatusOr<tracer::LaunchResult> ended = tracer::Launch(*options);
  if (!ended.ok()) return Trouble(ended.status().message());

  // Of a reader that went away, what it does not read is lost, and not the command's exit status.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a report beyond our limit for files is an error
  for (const std::string& complaint : ended->complaints)
    if (!complaint.empty()) Say(complaint);
  std::vector<std::string> recordings = WithoutRepetitions(ended->recordings);
  if (settings.on_rss_bytes != 0) rss_reports.Look(recordings);  // crossed just before the end
  rss_reports.Finish();
  ReportingOutcome outcome;
  bool left_for_later = settings.quiet && settings.reports.empty() && !settings.fail_on.has_value();
  if (recordings.empty()) {
    if (!settings.quiet && ended->complaints.empty())
      Say("nothing was recorded: no node process was started (--children=all records every program)");
  } else if (!left_for_later) {
    outcome = ReportRecordings(recordings, settings, TextStream::kStderr);
  }
  if (ended->end_signal != 0) {
    fflush(stdout);
    tracer::EndBySignal(ended->end_signal);
    return 128 + ended->end_signal;
  }
  return ExitStatus(outcome, ended->exit_code);
}

int ReportCommand(const Invocation& invocation) {
  if (absl::Status status = CheckReportFolders(invocation.settings); !status.ok()) return Trouble(status.message());
  std::vector<std::string> recordings;
  for (const std::string& operand : invocation.operands) {
    absl::StatusOr<std::string> recording = tracer::RecordingOf(operand);
    if (!recording.ok()) return Trouble(absl::StrCat("cannot report on ", operand, ": ", recording.status().message()));
    recordings.push_back(*std::move(recording));
  }
  return ExitStatus(ReportRecordings(recordings, invocation.settings, TextStream::kStdout), 0);
}

int Main(absl::Span<const std::string> arguments) {
  if (arguments.empty()) {
    WriteToStderr(HelpText());
    return kExitTrouble;
  }
  absl::StatusOr<Invocation> invocation = ParseCommandLine(arguments);
  if (!invocation.ok()) return Trouble(invocation.status().message());
  if (invocation->command != Command::kRun) signal(SIGXFSZ, SIG_IGN);  // what is run gets what we got
  switch (invocation->command) {
    case Command::kRun:
      return RunCommand(*invocation);
    case Command::kAttach:
      return AttachCommand(*invocation);
    case Command::kDetach:
      return DetachCommand(*invocation);
    case Command::kReport:
      return ReportCommand(*invocation);
    case Command::kGc:
      return GcCommand(*invocation);
    case Command::kSnapshot:
      return SnapshotCommand(*invocation);
    case Command::kRss:
      return RssCommand(*invocation);
    case Command::kHelp:
      return Print(HelpText());
    case Command::kVersion:
      return Print("nodeleak " NODELEAK_VERSION "\n");
    case Command::kNotYet:
      return Trouble(absl::StrCat("nodeleak ", invocation->command_name, " is not in this version yet"));
  }
  return kExitTrouble;
}

}  // namespace nodeleak::cli
