// What a recording amounts to, without a report of it.
#include <algorithm>
#include <vector>

#include "recording/process.h"
#include "report/build_report.h"
#include "report/grouping.h"
#include "report/memory_lines.h"
#include "report/recording_facts.h"
#include "report/uses.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

std::vector<bool> FramesOf(const Recording& recording, const std::vector<Use>& uses) {
  std::vector<bool> wanted(recording.frames.size());
  for (const Use& use : uses) {
    for (uint32_t frame : recording.FramesOfStack(use.stack)) wanted[frame] = true;
  }
  return wanted;
}

}  // namespace

ProcessSummary SummarizeRecordingWithNames(const Recording& recording, std::string recording_path,
                                           const std::string& root, const NativeNames& names) {
  ProcessSummary summary;
  summary.process = DescribeProcess(recording);
  summary.recording = std::move(recording_path);
  if (recording.stacks.empty()) return summary;
  std::vector<Use> uses = CollectUses(recording);
  // Blocks count whatever their kind; mappings may be the JavaScript heap's.
  for (const Use& use : uses) summary.outstanding_bytes += use.source == Source::kBlock ? use.live_bytes : 0;
  const auto is_settled = [](const Use& use) { return use.source != Source::kMapping || use.live_bytes == 0; };
  uses.erase(std::remove_if(uses.begin(), uses.end(), is_settled), uses.end());
  const std::vector<bool> wanted = FramesOf(recording, uses);
  const FrameTable frames(recording, names, root, &wanted);
  Packages packages(root);
  std::vector<ClassifiedUse> mappings = ClassifyUses(&uses, frames, &packages);
  SetAsideReservations(RssOf(recording), &mappings);
  for (const ClassifiedUse& mapping : mappings) {
    summary.outstanding_bytes += IsBackground(mapping.kind) ? 0 : mapping.use->live_bytes;
  }
  return summary;
}

ProcessSummary SummarizeRecording(const Recording& recording, std::string recording_path,
                                  symbolizer::Symbolizer* symbolizer) {
  const std::string root = recording::RootOfProcess(recording.process.pid, recording.process.process_start_ticks);
  return SummarizeRecordingWithNames(recording, std::move(recording_path), root, NamesFrom(symbolizer));
}

}  // namespace nodeleak::report
