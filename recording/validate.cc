#include "recording/validate.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "recording/block_sort.h"

namespace nodeleak::recording {
namespace {

// x86-64 with five-level page tables: user addresses have 56 bits.
constexpr uint64_t kAddressEnd = 1ull << 56;

void Damage(Recording* recording, uint64_t count, absl::string_view what) {
  if (count != 0) recording->damage.push_back(absl::StrCat(count, " ", what));
}

// A process that runs on is the reason.
void Torn(Recording* recording, uint64_t count, absl::string_view what) {
  if (count == 0) return;
  auto& list = recording->process.ending == Ending::kRunning ? recording->notes : recording->damage;
  list.push_back(absl::StrCat(count, " ", what));
}

// Keeps the index when it leads somewhere.
bool Check(uint32_t* index, size_t size, uint32_t otherwise, uint64_t* wrong) {
  if (*index < size || *index == otherwise) return true;
  *index = otherwise;
  ++*wrong;
  return false;
}

bool ValidateFrame(Frame* frame, const Recording& recording) {
  uint64_t wrong = 0;
  switch (static_cast<FrameType>(frame->type)) {
    case FrameType::kNative:
      Check(&frame->module_or_function, recording.modules.size(), kNoIndex, &wrong);
      break;
    case FrameType::kJs:
    case FrameType::kWasm:
    case FrameType::kJsNative:
      Check(&frame->module_or_function, recording.js_functions.size(), kNoIndex, &wrong);
      break;
    case FrameType::kMarker:
      frame->module_or_function = kNoIndex;
      if (frame->value >= static_cast<uint64_t>(MarkerId::kCount)) {
        frame->value = static_cast<uint64_t>(MarkerId::kNone);
        ++wrong;
      }
      break;
    default:
      *frame =
          Frame{static_cast<uint8_t>(FrameType::kMarker), 0, 0, 0, kNoIndex, static_cast<uint64_t>(MarkerId::kNone)};
      ++wrong;
  }
  constexpr uint8_t kHighestTier = 4;
  if (frame->tier > kHighestTier) frame->tier = 0;
  return wrong == 0;
}

// The marker that stands for frames that are not there. Made when it is needed first.
uint32_t MissingFrame(Recording* recording, uint32_t* missing) {
  if (*missing == kNoIndex) {
    *missing = static_cast<uint32_t>(recording->frames.size());
    recording->frames.push_back(
        Frame{static_cast<uint8_t>(FrameType::kMarker), 0, 0, 0, kNoIndex, static_cast<uint64_t>(MarkerId::kNone)});
  }
  return *missing;
}

void ValidateNodes(Recording* recording) {
  uint64_t wrong_parents = 0, wrong_frames = 0;
  const size_t frames = recording->frames.size();
  uint32_t missing = kNoIndex;
  for (size_t i = 1; i < recording->stack_nodes.size(); ++i) {
    StackNode& node = recording->stack_nodes[i];
    // The outer node has the smaller index: that there are no cycles follows.
    if (node.parent >= i) {
      node.parent = 0;
      ++wrong_parents;
    }
    if (node.frame >= frames) {
      node.frame = MissingFrame(recording, &missing);
      ++wrong_frames;
    }
  }
  if (!recording->stack_nodes.empty()) recording->stack_nodes[0] = StackNode{0, kNoIndex};
  Damage(recording, wrong_parents, "stack nodes have no outer frame that can be right: their stacks end there");
  Damage(recording, wrong_frames, "stack nodes name frames that do not exist: shown as missing");
}

}  // namespace

std::vector<uint32_t> Recording::FramesOfStack(uint32_t stack) const {
  std::vector<uint32_t> indices;
  if (stack >= stacks.size()) return indices;
  uint32_t node = stacks[stack].node;
  while (node != 0 && node < stack_nodes.size() && indices.size() < kMaxStackDepth) {
    if (stack_nodes[node].frame < frames.size()) indices.push_back(stack_nodes[node].frame);
    if (stack_nodes[node].parent >= node) break;
    node = stack_nodes[node].parent;
  }
  return indices;
}

void ValidateFrames(Recording* recording) {
  uint64_t wrong = 0;
  for (Frame& frame : recording->frames) {
    if (!ValidateFrame(&frame, *recording)) ++wrong;
  }
  Damage(recording, wrong, "frames name modules or functions that do not exist: shown as missing");
}

void ValidateStacks(Recording* recording) {
  ValidateNodes(recording);
  if (recording->stacks.empty()) recording->stacks.push_back(Stack{.node = 0, .thread = kNoIndex});
  uint64_t wrong_nodes = 0, wrong_threads = 0;
  for (Stack& stack : recording->stacks) {
    Check(&stack.node, recording->stack_nodes.size(), 0, &wrong_nodes);
    Check(&stack.thread, recording->threads.size(), kNoIndex, &wrong_threads);
  }
  Damage(recording, wrong_nodes, "stacks have frames that do not exist: shown without frames");
  Damage(recording, wrong_threads, "stacks belong to threads that do not exist: shown without a thread");
}

void ValidateBlocks(Recording* recording, bool torn) {
  uint64_t wrong_stacks = 0, wrong_addresses = 0;
  std::vector<Block>& blocks = recording->blocks;
  const auto makes_no_sense = [&](const Block& block) {
    return block.address == 0 || block.address >= kAddressEnd || BlockSize(block) > kAddressEnd - block.address;
  };
  const auto end = std::remove_if(blocks.begin(), blocks.end(), makes_no_sense);
  wrong_addresses = static_cast<uint64_t>(blocks.end() - end);
  blocks.erase(end, blocks.end());
  for (Block& block : blocks) Check(&block.stack, recording->stacks.size(), 0, &wrong_stacks);
  const uint64_t doubles = SortAndDropDoubles(&blocks);
  Damage(recording, wrong_addresses, "blocks lie at addresses that no process has: left out");
  Damage(recording, wrong_stacks, "blocks point to stacks that do not exist: counted under 'unknown stack'");
  // Removing from a table with linear probing moves entries: for a moment one is there twice.
  (torn ? Torn : Damage)(recording, doubles, "blocks were in the table twice: counted once");
}

void ValidateRanges(Recording* recording, bool torn) {
  uint64_t wrong = 0, wrong_stacks = 0;
  std::vector<Range> good;
  good.reserve(recording->ranges.size());
  for (Range range : recording->ranges) {
    const uint64_t begin = good.empty() ? 0 : good.back().end;
    if (range.start >= range.end || range.end > kAddressEnd || range.start < begin) {
      ++wrong;
      continue;
    }
    if (!Check(&range.stack, recording->stacks.size(), 0, &wrong_stacks)) range.flags |= kRangeStackUnknown;
    good.push_back(range);
  }
  recording->ranges = std::move(good);
  (torn ? Torn : Damage)(recording, wrong, "mappings overlap others or make no sense: left out");
  Damage(recording, wrong_stacks, "mappings point to stacks that do not exist: counted under 'unknown stack'");
}

void ValidateThreads(Recording* recording) {
  uint64_t wrong_stacks = 0, wrong_roles = 0, wrong_isolates = 0, wrong_spaces = 0;
  for (ThreadInfo& thread : recording->threads) {
    Check(&thread.creation_stack, recording->stacks.size(), kNoIndex, &wrong_stacks);
    if (thread.role > ThreadRole::kOther) {
      thread.role = ThreadRole::kUnknown;
      ++wrong_roles;
    }
  }
  for (Isolate& isolate : recording->isolates) {
    Check(&isolate.thread, recording->threads.size(), kNoIndex, &wrong_isolates);
  }
  for (HeapSpaceInfo& space : recording->spaces) {
    Check(&space.isolate, recording->isolates.size(), kNoIndex, &wrong_spaces);
  }
  // Threads are read after the stacks (stacks name threads): the newest thread may name a stack that is newer still.
  Torn(recording, wrong_stacks, "threads were created by stacks that are not there: shown without");
  Damage(recording, wrong_roles, "threads have a role that this nodeleak does not know");
  Damage(recording, wrong_isolates, "isolates belong to threads that do not exist");
  Damage(recording, wrong_spaces, "heap spaces belong to isolates that do not exist");
}

void ValidateTimeline(Recording* recording) {
  // The process thins the samples in place when they are many: while it does, times go back.
  uint64_t last = 0;
  const auto goes_back = [&](const TimelineSample& sample) {
    if (sample.time_ns < last) return true;
    last = sample.time_ns;
    return false;
  };
  auto& timeline = recording->timeline;
  const size_t before = timeline.size();
  std::vector<TimelineSample> good;
  for (const TimelineSample& sample : timeline) {
    if (good.size() < kMaxTimelineSamples && !goes_back(sample)) good.push_back(sample);
  }
  timeline = std::move(good);
  Torn(recording, before - timeline.size(), "samples of the timeline are out of order or too many: left out");
}

// An older writer names every stack that has live blocks, each time: one that is not named any more has none left.
void KeepChangesOfCheckpoints(Recording* recording) {
  std::vector<CheckpointEntry> changes;
  absl::flat_hash_map<uint32_t, CheckpointEntry> before;
  for (Checkpoint& checkpoint : recording->checkpoints) {
    const uint64_t first = changes.size();
    absl::flat_hash_map<uint32_t, CheckpointEntry> now;
    for (uint64_t i = 0; i < checkpoint.entry_count; ++i) {
      const CheckpointEntry& entry = recording->checkpoint_entries[checkpoint.first_entry + i];
      now[entry.stack] = entry;
      before.erase(entry.stack);
      changes.push_back(entry);
    }
    for (auto& [stack, entry] : before) {
      if (entry.live_blocks == 0 && entry.live_bytes == 0) continue;
      entry.live_blocks = 0;
      entry.live_bytes = 0;
      changes.push_back(entry);
    }
    checkpoint.first_entry = first;
    checkpoint.entry_count = static_cast<uint32_t>(changes.size() - first);
    before = std::move(now);
  }
  recording->checkpoint_entries = std::move(changes);
}

void ValidateCheckpoints(Recording* recording) {
  const uint64_t entries = recording->checkpoint_entries.size();
  uint64_t wrong_stacks = 0;
  for (CheckpointEntry& entry : recording->checkpoint_entries) {
    Check(&entry.stack, recording->stacks.size(), 0, &wrong_stacks);
  }
  std::vector<Checkpoint> good;
  for (const Checkpoint& checkpoint : recording->checkpoints) {
    const bool in_table =
        checkpoint.first_entry <= entries && checkpoint.entry_count <= entries - checkpoint.first_entry;
    const bool in_order = good.empty() || (checkpoint.time_ns >= good.back().time_ns &&
                                           checkpoint.first_entry >= good.back().first_entry + good.back().entry_count);
    if (in_table && in_order && good.size() < kMaxCheckpoints) good.push_back(checkpoint);
  }
  const uint64_t wrong = recording->checkpoints.size() - good.size();
  recording->checkpoints = std::move(good);
  if ((recording->process.flags & kCheckpointsAreChanges) == 0) KeepChangesOfCheckpoints(recording);
  Damage(recording, wrong_stacks,
         "entries of checkpoints point to stacks that do not exist: counted under 'unknown stack'");
  Torn(recording, wrong, "checkpoints are out of order, too many or not whole: left out");
}

void ValidateCollections(Recording* recording) {
  uint64_t wrong_isolates = 0, wrong_states = 0;
  if (recording->confirmation.kind > static_cast<uint32_t>(ConfirmationKind::kAtEnd)) {
    recording->damage.push_back(
        absl::StrCat("the header says collection of kind ", recording->confirmation.kind, ", which means nothing"));
    recording->confirmation = {};
  }
  for (GcAnswer& answer : recording->gc_answers) {
    Check(&answer.isolate, recording->isolates.size(), kNoIndex, &wrong_isolates);
    if (answer.state <= static_cast<uint32_t>(GcAnswerState::kGone)) continue;
    answer.state = static_cast<uint32_t>(GcAnswerState::kAsked);
    ++wrong_states;
  }
  if (recording->freed_by_gc.size() > recording->stacks.size()) recording->freed_by_gc.resize(recording->stacks.size());
  Damage(recording, wrong_isolates, "answers are of isolates that do not exist");
  Damage(recording, wrong_states, "answers have a state that this nodeleak does not know");
}

void ValidateOlderBuffers(Recording* recording) {
  std::vector<OlderBuffer>& buffers = recording->older_buffers;
  const size_t before = buffers.size();
  const auto makes_no_sense = [](const OlderBuffer& buffer) {
    return buffer.address == 0 || buffer.address >= kAddressEnd || buffer.bytes > kAddressEnd - buffer.address;
  };
  buffers.erase(std::remove_if(buffers.begin(), buffers.end(), makes_no_sense), buffers.end());
  std::stable_sort(buffers.begin(), buffers.end(),
                   [](const OlderBuffer& left, const OlderBuffer& right) { return left.address < right.address; });
  const auto same = [](const OlderBuffer& left, const OlderBuffer& right) { return left.address == right.address; };
  buffers.erase(std::unique(buffers.begin(), buffers.end(), same), buffers.end());
  uint64_t wrong_isolates = 0, wrong_states = 0;
  for (OlderBuffer& buffer : buffers) Check(&buffer.isolate, recording->isolates.size(), kNoIndex, &wrong_isolates);
  std::vector<BufferList>& lists = recording->buffer_lists;
  if (lists.size() > recording->isolates.size()) lists.resize(recording->isolates.size());
  for (BufferList& list : lists) {
    if (list.state <= static_cast<uint32_t>(BufferListState::kUnknown)) continue;
    list = {};
    ++wrong_states;
  }
  Damage(recording, before - buffers.size(), "older array buffers make no sense or are there twice: left out");
  Damage(recording, wrong_isolates, "older array buffers are of isolates that do not exist");
  Damage(recording, wrong_states, "lists of array buffers have a state that this nodeleak does not know");
}

void SumTotals(Recording* recording) {
  Totals& totals = recording->totals;
  for (const Block& block : recording->blocks) {
    const uint64_t stood_for = BlocksStoodFor(block);
    totals.live_blocks += stood_for;
    totals.live_bytes += BlockSize(block) * stood_for;
  }
  for (const Stack& stack : recording->stacks) {
    totals.allocated_bytes += stack.allocated_bytes;
    totals.allocated_blocks += stack.allocated_blocks;
    totals.freed_bytes += stack.freed_bytes;
    totals.freed_blocks += stack.freed_blocks;
  }
}

}  // namespace nodeleak::recording
