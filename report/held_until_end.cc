#include "report/held_until_end.h"

#include "absl/strings/str_cat.h"
#include "report/garbage.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kFewestBlocks = 4;
constexpr double kLookedAtShare = 0.25;

// Only there do turns follow the full GC without a signal.
bool EndedNaturally(const recording::Recording& recording) {
  return recording.process.freeze_reason == recording::FreezeReason::kAtExit && recording.confirmation.turns != 0 &&
         recording.confirmation.kind == static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd);
}

// The last checkpoint before the last full GC that V8 did by itself: what was allocated by then, it has looked at.
const recording::Checkpoint* BeforeLastGc(const recording::Recording& recording, uint32_t full_gcs) {
  const recording::Checkpoint* before = nullptr;
  for (const recording::Checkpoint& checkpoint : recording.checkpoints) {
    if (checkpoint.mark_compacts < full_gcs) before = &checkpoint;
  }
  return before;
}

}  // namespace

std::string HeldUntilEndSentence(const recording::Recording& recording, const Timebase& timebase,
                                 const std::vector<const Use*>& uses) {
  const recording::Checkpoint* at_end = EndedNaturally(recording) ? FindCheckpointBeforeGc(recording) : nullptr;
  if (at_end == nullptr) return "";
  const recording::Checkpoint* before_gc = BeforeLastGc(recording, at_end->mark_compacts);
  uint64_t allocated = 0, collected = 0;
  double looked_at = 0;
  for (const Use* use : uses) {
    if (!use->owns_counters) continue;
    allocated += recording.stacks[use->stack].allocated_blocks;
    collected += use->garbage_blocks + use->pending_blocks;
    if (before_gc != nullptr) looked_at += timebase.AllocatedBy(use->stack, SecondsOf(before_gc->time_ns));
  }
  if (allocated < kFewestBlocks || collected < allocated) return "";
  if (looked_at >= kLookedAtShare * static_cast<double>(allocated)) {
    return absl::StrCat(Plural(at_end->mark_compacts, "full GC"),
                        " before freed nothing of it: the script held it until it had run to its end");
  }
  return "nothing of it was freed before: the script may have held it until it had run to its end";
}

}  // namespace nodeleak::report
