// nodeleak snapshot PID|RECORDING -o FILE
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "recording/copy.h"
#include "tracer/live_recording.h"

namespace nodeleak::cli {
namespace {

// A process with a garbage collector writes it now, as far as the file itself tells.
bool HasCollector(const std::string& path) {
  const absl::StatusOr<recording::Header> header = tracer::LiveRecording::Peek(path);
  return header.ok() && (header->flags & recording::kIsNode) != 0;
}

absl::Status CollectAndCopy(const std::string& path, const std::string& output) {
  absl::StatusOr<tracer::LiveRecording> live = tracer::LiveRecording::Open(path);  // until the copy is made
  absl::Status collected = live.status();
  if (live.ok()) {
    ProgressLine progress("collecting");
    collected = live->Ask(recording::MailboxRequest::kGc, 0);
  }
  absl::Status copied = recording::CopyRecording(live.ok() ? live->path() : path, output);
  if (copied.ok() && !collected.ok() && HasCollector(path))  // at its end it collects by itself
    Say(absl::StrCat("copied without a full GC before it, so that garbage may pass for kept: ", collected.message()));
  return copied;
}

}  // namespace

int SnapshotCommand(const Invocation& invocation) {
  const std::string& output = invocation.settings.output;
  if (output.empty() || invocation.operands.size() != 1)
    return Trouble(
        "nodeleak snapshot needs one process or recording and a place for the copy: "
        "nodeleak snapshot PID|RECORDING -o FILE");
  const std::string& operand = invocation.operands[0];
  const absl::StatusOr<std::string> path = tracer::RecordingOf(operand);
  if (!path.ok()) return Trouble(absl::StrCat("cannot copy the recording of ", operand, ": ", path.status().message()));
  const bool collect = invocation.settings.gc_at_end && HasCollector(*path);
  const absl::Status copied = collect ? CollectAndCopy(*path, output) : recording::CopyRecording(*path, output);
  return copied.ok() ? 0 : Trouble(copied.message());
}

}  // namespace nodeleak::cli
