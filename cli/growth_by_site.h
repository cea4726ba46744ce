// Outside. Which lines of the program hold more and more memory, told while it is recorded: a look at the recording now
// and then, as rarely as it is expensive. Native names are not looked up for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace nodeleak::cli {

struct SiteBytes {
  std::string site;  // "keepSome app.js:12"
  uint64_t bytes = 0;

  bool operator==(const SiteBytes&) const = default;
};

// The sites that hold more than they did, by what they gained; at most `most` of them.
std::vector<SiteBytes> FindGrowth(const std::map<std::string, uint64_t>& then,
                                  const std::map<std::string, uint64_t>& now, size_t most);

class GrowthBySite {
 public:
  // The recording and what the files of the process begin with ("", or "/proc/PID/root").
  GrowthBySite(std::string recording, std::string root) : recording_(std::move(recording)), root_(std::move(root)) {}

  // Those that grew the most between the first look and the latest; looks again when it is time.
  const std::vector<SiteBytes>& Look();

 private:
  std::map<std::string, uint64_t> ReadSites() const;

  std::string recording_, root_;
  std::map<std::string, uint64_t> first_;
  bool has_looked_ = false;
  std::chrono::steady_clock::time_point next_look_;
  std::vector<SiteBytes> growth_;
};

}  // namespace nodeleak::cli
