#include "report/older_buffers.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/recording_facts.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

using recording::BufferListState;
using recording::Recording;

// Why an isolate's list is not whole; "" when it is.
constexpr const char* kReasons[] = {
    "came to no place where it could be read",
    "",
    "was longer than there was time or room for",
    "could only be read while V8 was sweeping, when a part of it is elsewhere",
    "is kept in a way that is not known, or did not add up to V8's own count",
};
constexpr size_t kStates = std::size(kReasons);
static_assert(kStates == static_cast<size_t>(BufferListState::kUnknown) + 1);

using StateCounts = std::array<uint64_t, kStates>;
constexpr size_t kWhole = static_cast<size_t>(BufferListState::kWhole);

// Of the isolates that were there at the picture.
StateCounts CountStates(const Recording& recording) {
  StateCounts counts = {};
  for (size_t i = 0; i < recording.isolates.size(); ++i) {
    if (EndedBeforeThePicture(recording, recording.isolates[i])) continue;
    ++counts[i < recording.buffer_lists.size() ? recording.buffer_lists[i].state : 0];
  }
  return counts;
}

void DescribeState(const Recording& recording, OlderBuffers* older) {
  older->state = CapabilityState::kAbsent;
  if (recording.process.sample_bytes != 0 || (recording.process.flags & recording::kSampleAutomatic) != 0) {
    older->why = "a sampled recording cannot tell older array buffers from new ones";
    return;
  }
  const StateCounts counts = CountStates(recording);
  uint64_t isolates = 0;
  std::vector<std::string> reasons;
  for (size_t state = 0; state < kStates; ++state) {
    isolates += counts[state];
    if (state == kWhole || counts[state] == 0) continue;
    reasons.push_back(absl::StrCat("the list of ", Plural(counts[state], "isolate"), " ", kReasons[state]));
  }
  if (isolates == 0) reasons.emplace_back("no isolate came to a place where its list could be read");
  older->why = absl::StrJoin(reasons, "; ");
  if (reasons.empty())
    older->state = CapabilityState::kFull;
  else if (!recording.older_buffers.empty() || counts[kWhole] != 0)
    older->state = CapabilityState::kDegraded;
}

void SumBuffers(const Recording& recording, OlderBuffers* older) {
  std::map<uint64_t, uint64_t, std::greater<>> by_size;
  for (const recording::OlderBuffer& buffer : recording.older_buffers) {
    const bool freed = (buffer.flags & recording::kOlderFreed) != 0;
    (freed ? older->freed_bytes : older->live_bytes) += buffer.bytes;
    (freed ? older->freed_blocks : older->live_blocks) += 1;
    if (!freed) ++by_size[buffer.bytes];
  }
  for (const auto& [bytes, blocks] : by_size) older->sizes.push_back({bytes, blocks});
  std::stable_sort(older->sizes.begin(), older->sizes.end(),
                   [](const auto& left, const auto& right) { return left.live_bytes() > right.live_bytes(); });
}

}  // namespace

std::optional<OlderBuffers> DescribeOlderBuffers(const Recording& recording) {
  if ((recording.process.flags & recording::kIsAttached) == 0 || !recording.process.IsNode()) return std::nullopt;
  OlderBuffers older;
  DescribeState(recording, &older);
  SumBuffers(recording, &older);
  for (const recording::BufferList& list : recording.buffer_lists) {
    older.read_at_seconds = std::max(older.read_at_seconds, static_cast<double>(list.read_ns) / 1e9);
    older.longest_pause_ms = std::max(older.longest_pause_ms, list.pause_us / 1e3);
  }
  return older;
}

}  // namespace nodeleak::report
