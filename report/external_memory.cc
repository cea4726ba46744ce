#include "report/external_memory.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "report/recording_facts.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kWorthSaying = 16u << 20;
constexpr uint64_t kKnownShare = 2;  // V8 knows at most half of it

std::string NameOf(const Group& group) {
  if (!group.origin.has_value()) return "an addon";
  if (!group.origin->package.empty()) return group.origin->package;
  return group.origin->module.substr(group.origin->module.rfind('/') + 1);
}

// Of an addon that brings its own allocator (napi-rs: mimalloc) only the mappings are seen, and most of what those have
// may never have been touched.
uint64_t MappedBy(const std::string& name, const Memory& memory) {
  const std::string wanted = absl::StrCat(KindName(Kind::kMapping), " ", name);
  for (const MemoryLine& line : memory.lines)
    if (line.name == wanted) return line.touched_bytes.value_or(0);
  return 0;
}

std::vector<ExternalMemory::Addon> AddonsOf(const std::vector<Group>& groups, const Memory& memory) {
  std::map<std::string, uint64_t> held;
  for (const Group& group : groups) {
    if (group.kind == Kind::kAddon && group.live_bytes != 0) held[NameOf(group)] += group.live_bytes;
  }
  std::vector<ExternalMemory::Addon> addons;
  addons.reserve(held.size());
  for (const auto& [name, bytes] : held) addons.push_back({name, bytes, MappedBy(name, memory)});
  std::stable_sort(addons.begin(), addons.end(), [](const auto& left, const auto& right) {
    return left.held_bytes + left.mapped_bytes > right.held_bytes + right.mapped_bytes;
  });
  return addons;
}

}  // namespace

std::optional<ExternalMemory> CheckExternalMemory(const recording::Recording& recording,
                                                  const std::vector<Group>& groups, const Memory& memory) {
  ExternalMemory external;
  bool was_read = false;
  for (const recording::Isolate& isolate : recording.isolates) {
    if (isolate.statistics_ns == 0 || EndedBeforeThePicture(recording, isolate)) continue;
    external.v8_bytes += isolate.external;
    external.told_bytes +=
        isolate.external_told == recording::kNoExternalTold ? isolate.external : isolate.external_told;
    was_read = true;
  }
  if (!was_read) return std::nullopt;
  for (const Group& group : groups) {
    if (group.kind == Kind::kArrayBuffer) external.array_buffer_bytes += group.live_bytes;
  }
  external.addons = AddonsOf(groups, memory);
  const uint64_t told = external.told_bytes > external.array_buffer_bytes
                            ? external.told_bytes - external.array_buffer_bytes
                            : 0;  // of all that is no array buffer, by all that tell V8
  for (const ExternalMemory::Addon& addon : external.addons) {
    const uint64_t held = addon.held_bytes + addon.mapped_bytes;
    if (held < kWorthSaying || told >= held / kKnownShare) continue;
    external.sentences.push_back(
        absl::StrCat(addon.name, " holds ", FormatBytes(held), ", of which V8 knows ", FormatBytes(told),
                     " at most: if JavaScript objects keep it alive, V8 collects them too late "
                     "(napi_adjust_external_memory tells it)"));
  }
  return external;
}

}  // namespace nodeleak::report
