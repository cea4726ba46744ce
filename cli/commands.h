// Outside. What each command does; the result is the exit status.
#pragma once

#include "cli/options.h"
#include "cli/reporting.h"

namespace nodeleak::cli {

inline constexpr int kExitFailOn = 1;   // --fail-on was met
inline constexpr int kExitTrouble = 2;  // we could not do what was asked

// Does not return when the command was ended by a signal: then we are ended by the same one.
int RunCommand(const Invocation& invocation);
int AttachCommand(const Invocation& invocation);
int DetachCommand(const Invocation& invocation);
int ReportCommand(const Invocation& invocation);
int GcCommand(const Invocation& invocation);
int RssCommand(const Invocation& invocation);
int SnapshotCommand(const Invocation& invocation);

// Says the sentence; kExitTrouble.
int Trouble(absl::string_view sentence);
// Writes to stdout; 0, or kExitTrouble when that cannot be.
int Print(absl::string_view text);
// The status of a command that ended with `command_status`, after its reports.
int ExitStatus(const ReportingOutcome& outcome, int command_status);

// All of it, from the arguments behind the program's name.
int Main(absl::Span<const std::string> arguments);

}  // namespace nodeleak::cli
