#include "report/likely_sites.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "report/absl_view.h"

namespace nodeleak::report {
namespace {

// node 18 to 26, src/node_zlib.cc: the classes that JavaScript makes, and what works for each on the pool.
struct StreamRow {
  Kind kind;
  std::string_view origin;  // how it begins; "": any of the kind
  std::string_view stream;  // how the function begins that makes the object
};
constexpr StreamRow kStreams[] = {
    {Kind::kZlib, "", "node::ZlibStream::New"},
    {Kind::kBrotli, "", "node::BrotliCompressionStream<"},
    {Kind::kNode, "ZSTD_", "node::ZstdStream<"},
};

const StreamRow* StreamOf(const Group& group) {
  const bool of_the_pool = group.threads.size() == 1 && group.threads.front() == "libuv pool";  // see threads.h
  if (!of_the_pool || group.site.has_value() || !group.origin.has_value() || group.live_blocks == 0) return nullptr;
  const auto found = std::find_if(std::begin(kStreams), std::end(kStreams), [&](const StreamRow& row) {
    return row.kind == group.kind && absl::StartsWith(group.origin->function, View(row.origin));
  });
  return found == std::end(kStreams) ? nullptr : found;
}

bool IsWhereStreamsAreMade(const Group& group, const StreamRow& row) {
  return group.kind == Kind::kNode && group.site.has_value() && group.origin.has_value() && group.live_blocks != 0 &&
         absl::StartsWith(group.origin->function, View(row.stream));
}

// Of streams that go and streams that stay, those that stay hold what stays.
std::optional<LikelySite> FindSite(const std::vector<Group>& groups, const Group& of, const StreamRow& row) {
  const Group* best = nullptr;
  for (const Group& group : groups) {
    if (!IsWhereStreamsAreMade(group, row)) continue;
    const auto rank = [&](const Group& one) { return std::pair(one.verdict == of.verdict, one.live_blocks); };
    if (best == nullptr || rank(group) > rank(*best)) best = &group;
  }
  if (best == nullptr) return std::nullopt;
  LikelySite likely = {*best->site};
  for (const Group& group : groups) {  // a site can be in several: --group-by=stack
    if (!IsWhereStreamsAreMade(group, row)) continue;
    likely.all_objects += group.live_blocks;
    if (group.site == best->site) likely.objects += group.live_blocks;
  }
  return likely;
}

}  // namespace

void AddLikelySites(std::vector<Group>* groups) {
  for (Group& group : *groups) {
    const StreamRow* row = StreamOf(group);
    if (row != nullptr) group.likely_site = FindSite(*groups, group, *row);
  }
}

}  // namespace nodeleak::report
