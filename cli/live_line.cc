#include "cli/live_line.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/console.h"
#include "report/text_layout.h"

namespace nodeleak::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kGrowthOver(5000);

std::string Growth(const LiveNumbers& then, const LiveNumbers& now) {
  const double seconds = static_cast<double>((now.passed - then.passed).count()) / 1000;
  if (seconds < 1) return "";
  const bool shrinks = now.bytes < then.bytes;
  const uint64_t change = shrinks ? then.bytes - now.bytes : now.bytes - then.bytes;
  return absl::StrCat(", ", shrinks ? "-" : "+",
                      report::FormatBytes(static_cast<uint64_t>(static_cast<double>(change) / seconds)), "/s");
}

std::string GrowthOfSites(const std::vector<SiteBytes>& growth) {
  std::string text;
  for (const SiteBytes& site : growth)
    absl::StrAppend(&text, text.empty() ? "; growing: " : ", ", site.site, " +", report::FormatBytes(site.bytes));
  return text;
}

// A longer line would stay on the screen: only its last row can be cleared.
int Columns() {
  constexpr int kUsual = 80;
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : kUsual - 1;
}

}  // namespace

LiveLine::LiveLine(bool wanted) : shown_(wanted && IsTerminal(STDERR_FILENO)) {}

LiveLine::~LiveLine() {
  if (shown_) fputs("\r\033[K", stderr);
}

void LiveLine::Show(const LiveNumbers& now, const std::vector<SiteBytes>& growth) {
  if (!shown_) return;
  recent_.push_back(now);
  while (now.passed - recent_.front().passed > kGrowthOver) recent_.pop_front();
  const std::string line =
      absl::StrFormat("nodeleak: %.0f s, %s in %s outstanding%s%s", static_cast<double>(now.passed.count()) / 1000,
                      report::FormatBytes(now.bytes), report::Plural(now.blocks, "block"), Growth(recent_.front(), now),
                      GrowthOfSites(growth));
  fputs(absl::StrCat("\r\033[K", report::FitEnd(line, Columns())).c_str(), stderr);
}

}  // namespace nodeleak::cli
