// nodeleak gc PID|RECORDING
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "recording/reader.h"
#include "report/report.h"
#include "tracer/live_recording.h"

namespace nodeleak::cli {
namespace {

constexpr uint64_t kShownRows = 10;

absl::StatusOr<report::Report> CollectAndRead(const std::string& operand) {
  absl::StatusOr<std::string> path = tracer::RecordingOf(operand);
  if (!path.ok()) return path.status();
  absl::StatusOr<tracer::LiveRecording> live = tracer::LiveRecording::Open(*path);
  if (!live.ok()) return live.status();
  if ((live->header().flags & recording::kIsNode) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("process ", live->pid(), " is not node: it has no garbage collector to ask"));
  }
  ProgressLine progress("collecting");
  if (absl::Status status = live->Ask(recording::MailboxRequest::kGc, 0); !status.ok()) return status;
  absl::StatusOr<recording::Recording> recording = recording::ReadRecording(live->path());
  if (!recording.ok()) return recording.status();
  report::ReportOptions options;
  options.requested_gc = true;
  options.max_stacks = 1;
  return report::BuildReport(*recording, options);
}

}  // namespace

int GcCommand(const Invocation& invocation) {
  const Settings& settings = invocation.settings;
  if (invocation.operands.size() != 1) {
    Say("nodeleak gc needs one process: nodeleak gc PID|RECORDING");
    return kExitTrouble;
  }
  if (settings.format == "folded") {
    Say("nodeleak gc prints text or json");
    return kExitTrouble;
  }
  const std::string& operand = invocation.operands[0];
  absl::StatusOr<report::Report> report = CollectAndRead(operand);
  if (!report.ok()) {
    Say(absl::StrCat("cannot collect garbage of ", operand, ": ", report.status().message()));
    return kExitTrouble;
  }
  report::TextOptions options;
  options.color = UseColor(STDOUT_FILENO);
  options.top = settings.top.value_or(kShownRows);
  return Print(settings.format == "json" ? report::RenderCollectionJson(*report)
                                         : report::RenderCollection(*report, options));
}

}  // namespace nodeleak::cli
