// Outside. The command line: one table of commands, one table of options; parsing, checking and --help come from them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nodeleak::cli {

struct FailOn {
  uint64_t min_bytes = 0;  // growing groups that together have at least this much outstanding
};

struct Settings {
  std::string output;                // --output; empty: the default name
  std::vector<std::string> reports;  // --report, in order
  std::string format = "text";       // text, json or folded
  std::string group_by;              // empty: kind, site and origin
  std::optional<uint32_t> top;       // 0: all
  uint64_t min_bytes = 0;
  uint64_t sample_bytes = 0;  // 0: every allocation; or recording::kSampleAutomatically
  std::string children = "node";
  bool gc_at_end = true;
  std::optional<FailOn> fail_on;
  uint64_t max_recording_bytes = 1ull << 30;
  uint64_t on_rss_bytes = 0;  // 0: not asked for
  bool quiet = false;
  std::optional<uint64_t> duration_ms;  // attach; none: until Ctrl-C
  bool trust_seccomp = false;           // attach: where a seccomp filter cannot be read
  bool keep = false;                    // attach: leave the recorder there
};

enum class Command { kRun, kAttach, kDetach, kReport, kGc, kSnapshot, kRss, kHelp, kVersion, kNotYet };

struct Invocation {
  Command command = Command::kRun;
  std::string command_name;  // as written, "run" when it was left out
  Settings settings;
  std::vector<std::string> operands;  // run: the program and its arguments; report: recordings; attach: a pid
};

// Errors are sentences; an unknown option's names the nearest known one.
absl::StatusOr<Invocation> ParseCommandLine(absl::Span<const std::string> arguments);

// The text of `nodeleak --help`.
std::string HelpText();

// Which format is written to `path`, by its extension ("-": `fallback`).
absl::StatusOr<std::string> FormatOfReport(absl::string_view path, absl::string_view fallback);

}  // namespace nodeleak::cli
