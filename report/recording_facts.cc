#include "report/recording_facts.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "recording/layout.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

using recording::CapabilityId;
using recording::LossId;
using recording::Recording;

constexpr const char* kCapabilityNames[] = {"native-stacks",    "js-frames",      "js-names",  "js-lines",
                                            "optimized-frames", "wasm-frames",    "gc-events", "forced-gc",
                                            "heap-statistics",  "end-of-process", "mappings",  "allocations"};
static_assert(std::size(kCapabilityNames) == static_cast<size_t>(CapabilityId::kCount));

// What a loss means to the reader: "3 blocks (1.2 KiB) were not recorded: ...".
struct LossRow {
  const char* unit;
  const char* sentence;
  bool is_full;   // the sentence goes on with why there was no room
  bool is_block;  // memory is missing from the report
  bool is_stack;  // memory is there, its stack is not whole
};
constexpr LossRow kLossRows[] = {
    {"block", "not recorded", true, true, false},
    {"allocation", "recorded without a stack", true, false, true},
    {"mapping", "not recorded", true, true, false},
    {"event", "not recorded: a lock of ours was busy for too long", false, true, false},
    {"allocation", "inside signal handlers not recorded", false, true, false},
    {"allocation", "before the recording began not recorded", false, true, false},
    {"stack", "cut short by a frame that could not be unwound", false, false, true},
    {"block", "not recorded: the shim had stopped watching", false, true, false},
};
static_assert(std::size(kLossRows) == static_cast<size_t>(LossId::kCount));

Ending EndingOf(recording::Ending ending) {
  switch (ending) {
    case recording::Ending::kRunning:
      return Ending::kRunning;
    case recording::Ending::kSignaled:
      return Ending::kSignal;
    case recording::Ending::kKilled:
      return Ending::kKilled;
    case recording::Ending::kDetached:
      return Ending::kDetached;
    case recording::Ending::kExited:
      return Ending::kExit;
    case recording::Ending::kReplaced:
      return Ending::kExec;
  }
  return Ending::kKilled;
}

CapabilityState StateOf(recording::CapabilityState state) {
  switch (state) {
    case recording::CapabilityState::kFull:
      return CapabilityState::kFull;
    case recording::CapabilityState::kDegraded:
      return CapabilityState::kDegraded;
    default:
      return CapabilityState::kAbsent;
  }
}

std::string WhyNoEndGc(const Recording& recording) {
  if (!recording.process.IsNode()) return "";
  switch (recording.process.gc_at_end) {
    case recording::GcAtEnd::kDone:
      return "";
    case recording::GcAtEnd::kOff:
      return "no full GC at the end (--gc=off): garbage counts as outstanding";
    case recording::GcAtEnd::kNotReachable:
      return "no full GC at the end (no safe moment was reached): garbage counts as outstanding";
    case recording::GcAtEnd::kNotDone:
      return recording.process.ending == recording::Ending::kRunning
                 ? "the process is still running: garbage counts as outstanding"
                 : "the process ended without a full GC: garbage counts as outstanding";
  }
  return "";
}

const char* WhyFull(const Recording& recording) {
  return (recording.process.flags & recording::kFileSizeLimited) != 0
             ? ": the recording is full, by the program's limit for the size of files (ulimit -f)"
             : ": the recording is full (--max-recording, ulimit -v) or the disk is";
}

std::string LossSentence(const Recording& recording, const LossRow& row, const recording::Loss& loss) {
  return absl::StrCat(Plural(loss.count, row.unit),
                      loss.bytes != 0 ? absl::StrCat(" (", FormatBytes(loss.bytes), ")") : "", " ", row.sentence,
                      row.is_full ? WhyFull(recording) : "");
}

}  // namespace

ProcessInfo DescribeProcess(const Recording& recording) {
  const recording::ProcessInfo& source = recording.process;
  ProcessInfo process;
  process.pid = source.pid;
  process.ppid = source.ppid;
  for (const auto& argument : source.command) process.command.emplace_back(argument.data(), argument.size());
  process.executable = std::string(source.executable);
  process.working_directory = std::string(source.working_directory);
  process.node_version = std::string(source.node_version);
  process.v8_version = std::string(source.v8_version);
  process.started_at_unix_ns = source.start_realtime_ns;
  process.is_attached = (source.flags & recording::kIsAttached) != 0;
  process.duration_seconds = static_cast<double>(source.duration_ns) / 1e9;
  process.ending = EndingOf(source.ending);
  process.is_copy = (source.flags & recording::kIsSnapshot) != 0;
  if (source.ending == recording::Ending::kExited && source.exit_code >= 0) process.exit_code = source.exit_code;
  if (source.end_signal != 0) process.signal = source.end_signal;
  process.is_node = source.IsNode();
  process.is_launcher = (source.flags & recording::kIsLauncher) != 0;
  process.is_root_command = (source.flags & recording::kIsRootCommand) != 0;
  return process;
}

std::vector<Capability> DescribeCapabilities(const Recording& recording) {
  std::vector<Capability> capabilities;
  for (size_t i = 0; i < std::size(kCapabilityNames); ++i) {
    const recording::CapabilityInfo& source = recording.capabilities[i];
    if (source.state == recording::CapabilityState::kUnknown) {
      if (recording.process.IsNode()) {
        capabilities.push_back({kCapabilityNames[i], CapabilityState::kAbsent, "the process never came to it"});
      }
      continue;
    }
    capabilities.push_back({kCapabilityNames[i], StateOf(source.state), std::string(source.why)});
  }
  if (!recording.damage.empty()) {
    capabilities.push_back({"recording", CapabilityState::kDegraded, absl::StrJoin(recording.damage, "; ")});
  }
  return capabilities;
}

namespace {
// `end_ns` of something; 0: it has not ended.
bool IsBeforeThePicture(const Recording& recording, uint64_t end_ns) {
  const uint64_t frozen = recording.process.frozen_ns;
  return end_ns != 0 && (frozen == 0 || end_ns < frozen);
}
}  // namespace

bool EndedBeforeThePicture(const Recording& recording, const recording::Isolate& isolate) {
  return IsBeforeThePicture(recording, isolate.disposed_ns);
}

// Between its own end and that of its thread, the thread frees what it held. When we did not see a thread start, we
// do not see it end.
bool HasLetGo(const Recording& recording, const recording::Isolate& isolate) {
  if (!EndedBeforeThePicture(recording, isolate)) return false;
  if (isolate.thread >= recording.threads.size()) return true;
  const recording::ThreadInfo& thread = recording.threads[isolate.thread];
  return thread.creation_stack == recording::kNoIndex || IsBeforeThePicture(recording, thread.end_ns);
}

Lost SumLosses(const Recording& recording) {
  Lost lost;
  for (size_t i = 0; i < std::size(kLossRows); ++i) {
    if (kLossRows[i].is_stack) lost.stacks += recording.losses[i].count;
    if (!kLossRows[i].is_block) continue;
    lost.blocks += recording.losses[i].count;
    lost.bytes += recording.losses[i].bytes;
  }
  return lost;
}

// What an attached process had before is not in the recording.
std::string DescribeAttach(const Recording& recording) {
  if ((recording.process.flags & recording::kIsAttached) == 0) return "";
  const uint64_t freed = recording.process.sample_bytes == 0 ? recording.totals.unknown_frees : 0;
  const bool replaced = recording.process.ending == recording::Ending::kReplaced;
  return absl::StrCat(
      "watched only since ",
      absl::FormatTime("%H:%M:%S", absl::FromUnixNanos(static_cast<int64_t>(recording.process.start_realtime_ns)),
                       absl::LocalTimeZone()),
      ", when nodeleak attached: what was allocated before is not in here",
      freed != 0 ? absl::StrCat(" (", Plural(freed, "block"), " of it were freed since)") : "",
      replaced ? "; it has become another program since (exec), of which nothing is in here" : "");
}

std::vector<std::string> DescribeTroubles(const Recording& recording) {
  std::vector<std::string> troubles = recording.damage;
  if (std::string attached = DescribeAttach(recording); !attached.empty()) troubles.push_back(std::move(attached));
  for (size_t i = 0; i < std::size(kLossRows); ++i) {
    if (recording.losses[i].count != 0) troubles.push_back(LossSentence(recording, kLossRows[i], recording.losses[i]));
  }
  if (recording.process.sample_bytes != 0) {
    const bool automatic = (recording.process.flags & recording::kSampleAutomatic) != 0;
    troubles.push_back(absl::StrCat("sampled (--sample=", automatic ? "auto, now " : "",
                                    FormatBytes(recording.process.sample_bytes),
                                    "): numbers with ~ are estimates, ± is what 95 % of such estimates stay within"));
  }
  if (std::string why = WhyNoEndGc(recording); !why.empty()) troubles.push_back(std::move(why));
  if (recording.process.ending == recording::Ending::kReplaced) {
    troubles.push_back("the process replaced itself by another program (exec): this is its picture before that");
  }
  troubles.insert(troubles.end(), recording.notes.begin(), recording.notes.end());
  return troubles;
}

}  // namespace nodeleak::report
