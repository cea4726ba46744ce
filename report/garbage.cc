#include "report/garbage.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/types/span.h"

namespace nodeleak::report {
namespace {

using recording::Checkpoint;
using recording::CheckpointEntry;
using recording::Recording;

absl::Span<const CheckpointEntry> EntriesOf(const Recording& recording, const Checkpoint& checkpoint) {
  return absl::MakeConstSpan(recording.checkpoint_entries).subspan(checkpoint.first_entry, checkpoint.entry_count);
}

bool IsMapping(const Recording& recording, uint32_t stack) {
  return (recording.stacks[stack].flags & recording::kStackMapping) != 0;
}

// At each checkpoint.
std::vector<uint64_t> LiveBytes(const Recording& recording) {
  std::vector<uint64_t> live_of_stack(recording.stacks.size()), sums;
  uint64_t bytes = 0;
  for (const Checkpoint& checkpoint : recording.checkpoints) {
    for (const CheckpointEntry& entry : EntriesOf(recording, checkpoint)) {
      if (IsMapping(recording, entry.stack)) continue;
      bytes += entry.live_bytes - std::exchange(live_of_stack[entry.stack], entry.live_bytes);
    }
    sums.push_back(bytes);
  }
  return sums;
}

uint64_t Distance(uint64_t left, uint64_t right) { return left > right ? left - right : right - left; }

uint64_t CollectionAtEndBegan(const Recording& recording) {
  const bool is_known = recording.confirmation.kind == static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd) &&
                        recording.confirmation.begun_ns != 0;
  return is_known ? recording.confirmation.begun_ns : std::numeric_limits<uint64_t>::max();
}

}  // namespace

// The one before the collection has as many bytes alive as the header says there were: one that was taken earlier, or
// afterwards, would name the wrong stacks. Other threads allocate between the two counts. On a busy machine a
// collection may take so long that several come after it.
const Checkpoint* FindCheckpointBeforeGc(const Recording& recording) {
  constexpr size_t kYoungest = 3;
  const uint64_t expected = recording.totals.live_bytes_before_gc;
  const uint64_t tolerance = 4096 + expected / 500;
  const Checkpoint* best = nullptr;
  uint64_t best_distance = 0;
  const uint64_t began_ns = CollectionAtEndBegan(recording);
  const std::vector<uint64_t> live_bytes = LiveBytes(recording);
  size_t count = recording.checkpoints.size();
  while (count > 0 && recording.checkpoints[count - 1].time_ns > began_ns) --count;
  for (size_t i = count - std::min(count, kYoungest); i < count; ++i) {
    const uint64_t distance = Distance(live_bytes[i], expected);
    if (distance > tolerance || (best != nullptr && distance > best_distance)) continue;
    best = &recording.checkpoints[i];
    best_distance = distance;
  }
  return best;
}

void AddFreed(const recording::Recording& recording, std::vector<Use>* uses) {
  for (Use& use : *uses) {
    // A stack's counters belong to one of its uses, and so does this.
    if (!use.owns_counters || use.stack >= recording.freed_by_gc.size()) continue;
    const recording::FreedByGc& freed = recording.freed_by_gc[use.stack];
    use.garbage_bytes = freed.garbage_bytes;
    use.garbage_blocks = freed.garbage_blocks;
    use.pending_bytes = freed.pending_bytes;
    use.pending_blocks = freed.pending_blocks;
  }
}

}  // namespace nodeleak::report
