// Whatever the reader lets through, a report can be made of it and written down: lines fit, nothing crashes or runs
// away. For libFuzzer (clang++ -fsanitize=fuzzer) and for reader_fuzz_driver.cc.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_split.h"
#include "recording/reader.h"
#include "report/build_report.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

#define PROMISE(condition)                               \
  if (!(condition)) {                                    \
    fprintf(stderr, "promise broken: %s\n", #condition); \
    abort();                                             \
  }

// Every third address has no name, every fifth is of an inlined function: no files are read.
absl::StatusOr<std::vector<symbolizer::SymbolFrame>> NameOf(uint64_t address) {
  if (address % 3 == 0) return absl::NotFoundError("no symbol");
  symbolizer::SymbolFrame frame;
  frame.function = address % 2 == 0 ? "node::NodeArrayBufferAllocator::Allocate(unsigned long)" : "operator new(int)";
  std::vector<symbolizer::SymbolFrame> frames = {frame};
  if (address % 5 == 0) frames.insert(frames.begin(), frame)->inlined = true;
  return frames;
}

NativeNames FakeNames() {
  NativeNames names;
  names.symbolize = [](const symbolizer::ModuleRef&, absl::Span<const uint64_t> addresses) {
    std::vector<absl::StatusOr<std::vector<symbolizer::SymbolFrame>>> answers;
    for (const uint64_t address : addresses) answers.push_back(NameOf(address));
    return answers;
  };
  names.describe = [](const symbolizer::ModuleRef&) {
    return symbolizer::ModuleInfo{symbolizer::ModuleState::kVerified};
  };
  return names;
}

void CheckText(const Report& report, const TextOptions& options) {
  const std::string text = RenderText(report, options);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    PROMISE(DisplayWidth({line.data(), line.size()}) <= options.columns);
  }
}

void CheckReport(const Report& report) {
  uint64_t outstanding = 0;
  for (const KindTotal& total : report.kinds) outstanding += IsBackground(total.kind) ? 0 : total.live_bytes;
  PROMISE(report.totals.live_bytes == outstanding);
  for (size_t i = 1; i < report.groups.size(); ++i) {
    PROMISE(report.groups[i - 1].live_bytes >= report.groups[i].live_bytes);
  }
  for (const Group& group : report.groups) {
    uint64_t in_stacks = 0;
    for (const StackUse& stack : group.stacks) in_stacks += stack.live_bytes;
    PROMISE(in_stacks == group.live_bytes);
  }
}

}  // namespace
}  // namespace nodeleak::report

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nodeleak::report;
  const auto recording = nodeleak::recording::ParseRecording({reinterpret_cast<const char*>(data), size});
  if (!recording.ok()) return 0;
  ReportOptions options;
  options.group_by = static_cast<GroupBy>(size % 6);
  const absl::StatusOr<Report> report = BuildReportWithNames(*recording, options, FakeNames());
  PROMISE(report.ok());
  CheckReport(*report);
  CheckText(*report, {});
  CheckText(*report, {.top = 0});
  PROMISE(!RenderJson(*report).empty());
  RenderFolded(*report);
  const ProcessSummary summary = SummarizeRecordingWithNames(*recording, "", "", FakeNames());
  PROMISE(summary.outstanding_bytes == report->totals.live_bytes);
  RenderSummary({Summarize(*report, "nodeleak.node.1.rec"), summary}, 0);
  return 0;
}
