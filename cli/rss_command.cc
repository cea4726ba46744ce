// nodeleak rss: the memory waterfall of a process now, or of a recording at its end.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "recording/reader.h"
#include "report/live_picture.h"
#include "report/report.h"
#include "tracer/find_recording.h"

namespace nodeleak::cli {
namespace {

// A recording with the picture of now in it, when its process still runs and is still watched. Why there is none is
// said at once: what was stored earlier would pass for now.
absl::StatusOr<recording::Recording> ReadWithPicture(const std::string& path) {
  absl::StatusOr<recording::Recording> recording = recording::ReadRecording(path);
  if (!recording.ok()) return recording.status();
  const recording::ProcessInfo& process = recording->process;
  if (process.ending != recording::Ending::kRunning || (process.flags & recording::kIsSnapshot) != 0) return recording;
  if (process.frozen_ns != 0) {
    Say(absl::StrCat("the recording of process ", process.pid, " stopped ", process.frozen_ns / 1'000'000,
                     " ms after its start: only what was stored until then can be shown"));
    return recording;
  }
  absl::StatusOr<recording::PictureInfo> now = report::TakePictureNow(recording->process.pid, *recording);
  if (now.ok()) {
    recording->pictures.push_back(*std::move(now));
  } else {
    Say(absl::StrCat(now.status().message(), ": what was stored earlier is shown"));
  }
  return recording;
}

absl::StatusOr<recording::Recording> ReadTarget(const std::string& operand) {
  const std::optional<uint32_t> pid = tracer::AsPid(operand);
  if (!pid.has_value()) return ReadWithPicture(operand);
  absl::StatusOr<std::string> path = tracer::FindRecordingOfProcess(*pid);
  return path.ok() ? ReadWithPicture(*path) : report::PictureUnrecorded(*pid);
}

}  // namespace

int RssCommand(const Invocation& invocation) {
  const auto trouble = [](absl::string_view sentence) {
    Say(sentence);
    return kExitTrouble;
  };
  if (invocation.operands.size() != 1) return trouble("nodeleak rss takes one process or recording");
  absl::StatusOr<recording::Recording> recording = ReadTarget(invocation.operands[0]);
  if (!recording.ok()) return trouble(recording.status().message());
  if (recording->pictures.empty())
    return trouble(absl::StrCat(invocation.operands[0],
                                " has no memory picture: it ended in the first half second, or "
                                "its nodeleak took none"));
  absl::StatusOr<report::Report> report = report::BuildReport(*recording, {});
  if (!report.ok()) return trouble(report.status().message());
  report::TextOptions options;
  options.color = UseColor(STDOUT_FILENO);
  const std::string text = invocation.settings.format == "json" ? report::RenderMemoryJson(*report)
                                                                : report::RenderMemoryText(*report, options);
  return Print(text);
}

}  // namespace nodeleak::cli
