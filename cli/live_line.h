// Outside. One line on the terminal that says how a recording grows while it is made; nothing where stderr is none.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <vector>

#include "cli/growth_by_site.h"

namespace nodeleak::cli {

struct LiveNumbers {
  std::chrono::milliseconds passed;
  uint64_t blocks, bytes;  // outstanding
};

class LiveLine {
 public:
  explicit LiveLine(bool wanted);
  ~LiveLine();
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  bool shown() const { return shown_; }
  // `growth`: the sites that grew the most, and by how much since the beginning.
  void Show(const LiveNumbers& now, const std::vector<SiteBytes>& growth);

 private:
  bool shown_;
  std::deque<LiveNumbers> recent_;  // for the growth: some seconds
};

}  // namespace nodeleak::cli
