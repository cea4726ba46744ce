// Outside. From the recordings of one run to what is printed and written.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/options.h"

namespace nodeleak::cli {

struct ReportingOutcome {
  bool failed = false;   // something that was asked for could not be read or written; it has been said
  bool fail_on = false;  // --fail-on was met
};

// Where the text for a person goes.
enum class TextStream { kStdout, kStderr };

// Prints the summary and the report of the largest process, and writes the files of --report. `root`: where the paths
// of the processes start, when the caller knows better than the report (report::ReportOptions::root).
ReportingOutcome ReportRecordings(const std::vector<std::string>& recordings, const Settings& settings,
                                  TextStream stream, const std::string& root = "");

// Can the files of --report be written? Asked before the command is started, not after an hour of running.
absl::Status CheckReportFolders(const Settings& settings);

}  // namespace nodeleak::cli
