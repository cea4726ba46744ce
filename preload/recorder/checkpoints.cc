#include "preload/recorder/checkpoints.h"

#include "preload/base/system.h"

namespace nodeleak::preload {
namespace {

using recording::Checkpoint;
using recording::CheckpointEntry;
using recording::Stack;

// False: the stack is as the checkpoint before saw it.
bool ChangedSince(Stack* stack, CheckpointEntry* entry) {
  const uint64_t freed_bytes = __atomic_load_n(&stack->freed_bytes, __ATOMIC_RELAXED);
  const uint64_t freed_blocks = __atomic_load_n(&stack->freed_blocks, __ATOMIC_RELAXED);
  entry->allocated_bytes = __atomic_load_n(&stack->allocated_bytes, __ATOMIC_RELAXED);
  entry->allocated_blocks = __atomic_load_n(&stack->allocated_blocks, __ATOMIC_RELAXED);
  const uint64_t sum =
      entry->allocated_bytes + entry->allocated_blocks + freed_bytes + freed_blocks;  // none ever falls
  if (sum == stack->at_checkpoint) return false;
  stack->at_checkpoint = sum;
  entry->live_bytes = entry->allocated_bytes > freed_bytes ? entry->allocated_bytes - freed_bytes : 0;
  const uint64_t live_blocks = entry->allocated_blocks > freed_blocks ? entry->allocated_blocks - freed_blocks : 0;
  entry->live_blocks = live_blocks < 0xffffffffu ? static_cast<uint32_t>(live_blocks) : 0xffffffffu;
  return true;
}

}  // namespace

void Checkpoints::Attach(RecordingFile* file) {
  checkpoints_.Attach(file, recording::TableId::kCheckpoints, recording::kMaxCheckpoints * 2);
  entries_.Attach(file, recording::TableId::kCheckpointEntries, 1024);
}

bool Checkpoints::Add(Checkpoint moment, const StackTable& stacks) {
  const bool full = checkpoints_.count() >= recording::kMaxCheckpoints;
  if (full && !Thin()) return false;
  moment.first_entry = entries_.count();
  moment.entry_count = 0;
  const uint64_t count = stacks.count();
  for (uint32_t i = 0; i < count; ++i) {
    CheckpointEntry entry = {};
    entry.stack = i;
    if (!ChangedSince(&stacks[i], &entry)) continue;
    if (entries_.Append(entry) == recording::kNoIndex) {
      stacks[i].at_checkpoint = 0;
      Drop(moment.first_entry, stacks);
      return full;
    }
    ++moment.entry_count;
  }
  if (checkpoints_.Append(moment) == recording::kNoIndex) Drop(moment.first_entry, stacks);
  return full;
}

void Checkpoints::Drop(uint64_t first_entry, const StackTable& stacks) {
  for (uint64_t e = first_entry; e < entries_.count(); ++e) stacks[entries_[e].stack].at_checkpoint = 0;
  entries_.Publish(first_entry);
}

// Closes the gaps in the entries as it goes. Readers see no checkpoint in the meantime.
bool Checkpoints::Thin() {
  const uint64_t count = checkpoints_.count();
  uint64_t most = 0;
  for (uint64_t i = 0; i < count; i += 2)
    most = checkpoints_[i].entry_count > most ? checkpoints_[i].entry_count : most;
  const uint64_t bytes = (most + 1) * sizeof(CheckpointEntry);
  auto* going = static_cast<CheckpointEntry*>(MapMemory(bytes));
  if (going == nullptr) return false;
  checkpoints_.Publish(0);
  uint64_t used = 0;
  for (uint64_t i = 0; i < count / 2; ++i) {
    const Checkpoint dropped = checkpoints_[2 * i];
    Checkpoint kept = checkpoints_[2 * i + 1];
    for (uint64_t e = 0; e < dropped.entry_count; ++e) going[e] = entries_[dropped.first_entry + e];
    kept.entry_count =
        static_cast<uint32_t>(Merge(going, dropped.entry_count, kept.first_entry, kept.entry_count, used));
    kept.first_entry = used;
    used += kept.entry_count;
    checkpoints_[i] = kept;
  }
  entries_.Publish(used);
  checkpoints_.Publish(count / 2);
  UnmapMemory(going, bytes);
  return true;
}

// Entries of a checkpoint that goes and of the next one, which overrides it, to `to`: at or before where the first had
// its own. All are by rising stack. Returns how many there are.
uint64_t Checkpoints::Merge(const CheckpointEntry* going, uint64_t going_count, uint64_t next, uint64_t next_count,
                            uint64_t to) {
  uint64_t merged = 0;
  for (uint64_t g = 0, n = 0; g < going_count || n < next_count; ++merged) {
    const bool takes_next = n < next_count && (g == going_count || entries_[next + n].stack <= going[g].stack);
    if (takes_next && g < going_count && entries_[next + n].stack == going[g].stack) ++g;
    entries_[to + merged] = takes_next ? entries_[next + n++] : going[g++];
  }
  return merged;
}

}  // namespace nodeleak::preload
