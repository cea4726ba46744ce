// Outside. --on-rss: the report copy of a process whose RSS has crossed the size, while the command runs on.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <vector>

#include "cli/options.h"

namespace nodeleak::cli {

class RssReports {
 public:
  explicit RssReports(const Settings& settings) : settings_(settings) {}

  // Writes the reports that are due, each by a process of its own: we must go on to pass signals to the command.
  void Look(const std::vector<std::string>& recordings);
  // Waits until all are written.
  void Finish();

 private:
  void WriteInChild(const std::string& recording, bool is_root_command);

  const Settings& settings_;
  std::set<std::string> done_;
  std::vector<pid_t> writers_;
};

// The names of the copy: of --report=leaks.json "leaks.rss.json", for other processes than the command itself
// "leaks.4242.rss.json" unless there is %p in it already; without --report "nodeleak.%n.%p.rss.txt".
std::vector<std::string> RssReportNames(const std::vector<std::string>& reports, bool is_root_command);

}  // namespace nodeleak::cli
