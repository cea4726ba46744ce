#include "cli/growth_by_site.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "recording/reader.h"
#include "report/frames.h"
#include "report/grouping.h"
#include "report/text_layout.h"
#include "report/uses.h"

namespace nodeleak::cli {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kMostBytes = 64u << 20;  // what is read within a moment; Ctrl-C waits for it
constexpr std::chrono::milliseconds kBetweenLooks(2000);
constexpr int kRestPerWork = 20;  // at most a twentieth of the time is spent looking
constexpr size_t kMostSites = 2;
constexpr int kSiteColumns = 36;

report::NativeNames NoNames() {
  report::NativeNames names;
  names.symbolize = [](const symbolizer::ModuleRef&, absl::Span<const uint64_t> addresses) {
    return std::vector<absl::StatusOr<std::vector<symbolizer::SymbolFrame>>>(
        addresses.size(), absl::NotFoundError("names are not looked up while it is recorded"));
  };
  names.describe = [](const symbolizer::ModuleRef&) { return symbolizer::ModuleInfo(); };
  return names;
}

std::string NameOf(const report::Site& site, std::string_view directory) {
  const std::string function = site.function.empty() ? "(anonymous)" : site.function;
  const int left = std::max(kSiteColumns - static_cast<int>(function.size()) - 1, kSiteColumns / 2);
  return absl::StrCat(report::FitEnd(function, kSiteColumns / 2), " ",
                      report::Location(site.file, site.line, 0, directory, left));
}

}  // namespace

std::vector<SiteBytes> FindGrowth(const std::map<std::string, uint64_t>& then,
                                  const std::map<std::string, uint64_t>& now, size_t most) {
  std::vector<SiteBytes> growth;
  for (const auto& [site, bytes] : now) {
    const auto before = then.find(site);
    const uint64_t had = before == then.end() ? 0 : before->second;
    if (bytes > had) growth.push_back({site, bytes - had});
  }
  std::stable_sort(growth.begin(), growth.end(),
                   [](const SiteBytes& left, const SiteBytes& right) { return left.bytes > right.bytes; });
  growth.resize(std::min(growth.size(), most));
  return growth;
}

std::map<std::string, uint64_t> GrowthBySite::ReadSites() const {
  std::map<std::string, uint64_t> sites;
  struct stat file;
  // Preallocated and sparse: what counts is what is there.
  if (stat(recording_.c_str(), &file) != 0 || static_cast<uint64_t>(file.st_blocks) * 512 > kMostBytes) return sites;
  const absl::StatusOr<recording::Recording> recording = recording::ReadRecording(recording_);
  if (!recording.ok()) return sites;
  std::vector<report::Use> uses = report::CollectUses(*recording);
  const report::FrameTable frames(*recording, NoNames(), root_);
  report::Packages packages(root_);
  for (const report::ClassifiedUse& use : report::ClassifyUses(&uses, frames, &packages)) {
    const bool is_mapping = use.use->source != report::Source::kBlock;  // V8's reservations would drown the rest
    if (is_mapping || !use.site.has_value() || use.use->live_bytes == 0) continue;
    sites[NameOf(*use.site, std::string(recording->process.working_directory))] += use.use->live_bytes;
  }
  return sites;
}

const std::vector<SiteBytes>& GrowthBySite::Look() {
  const auto begin = steady_clock::now();
  if (begin < next_look_) return growth_;
  std::map<std::string, uint64_t> now = ReadSites();
  growth_ = has_looked_ ? FindGrowth(first_, now, kMostSites) : std::vector<SiteBytes>();
  if (!std::exchange(has_looked_, true)) first_ = std::move(now);
  const auto end = steady_clock::now();
  next_look_ = end + std::max<steady_clock::duration>(kBetweenLooks, kRestPerWork * (end - begin));
  return growth_;
}

}  // namespace nodeleak::cli
