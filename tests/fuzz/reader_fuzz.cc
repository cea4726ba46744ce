// Any bytes: the reader says no in a sentence, or returns a model in which everything is what recording.h promises.
// For libFuzzer (clang++ -fsanitize=fuzzer) and for reader_fuzz_driver.cc.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "recording/reader.h"

namespace nodeleak::recording {
namespace {

#define PROMISE(condition)                               \
  if (!(condition)) {                                    \
    fprintf(stderr, "promise broken: %s\n", #condition); \
    abort();                                             \
  }

bool InRange(uint32_t index, size_t size) { return index == kNoIndex || index < size; }

void CheckFrames(const Recording& recording) {
  for (const Frame& frame : recording.frames) {
    PROMISE(frame.type >= 1 && frame.type <= 5);
    const bool native = frame.type == static_cast<uint8_t>(FrameType::kNative);
    PROMISE(InRange(frame.module_or_function, native ? recording.modules.size() : recording.js_functions.size()));
  }
  for (size_t i = 1; i < recording.stack_nodes.size(); ++i) PROMISE(recording.stack_nodes[i].parent < i);
  PROMISE(!recording.stacks.empty());
  for (uint32_t i = 0; i < recording.stacks.size(); ++i) {
    PROMISE(InRange(recording.stacks[i].thread, recording.threads.size()));
    const std::vector<uint32_t> frames = recording.FramesOfStack(i);
    PROMISE(frames.size() <= kMaxStackDepth);
    for (const uint32_t frame : frames) PROMISE(frame < recording.frames.size());
  }
}

void CheckMemory(const Recording& recording) {
  uint64_t last = 0, blocks = 0, bytes = 0;
  for (const Block& block : recording.blocks) {
    PROMISE(block.address > last);
    PROMISE(block.stack < recording.stacks.size());
    last = block.address;
    blocks += BlocksStoodFor(block);
    bytes += BlockSize(block) * BlocksStoodFor(block);
  }
  PROMISE(recording.totals.live_blocks == blocks && recording.totals.live_bytes == bytes);
  last = 0;
  for (const Range& range : recording.ranges) {
    PROMISE(range.start >= last && range.end > range.start);
    PROMISE(range.stack < recording.stacks.size());
    last = range.end;
  }
}

void CheckOthers(const Recording& recording) {
  for (const ThreadInfo& thread : recording.threads) {
    PROMISE(InRange(thread.creation_stack, recording.stacks.size()));
    PROMISE(thread.role <= ThreadRole::kOther);
  }
  for (const Isolate& isolate : recording.isolates) PROMISE(InRange(isolate.thread, recording.threads.size()));
  for (const HeapSpaceInfo& space : recording.spaces) PROMISE(InRange(space.isolate, recording.isolates.size()));
  PROMISE(recording.timeline.size() <= kMaxTimelineSamples);
  PROMISE(recording.checkpoints.size() <= kMaxCheckpoints);
  for (const Checkpoint& checkpoint : recording.checkpoints) {
    PROMISE(checkpoint.first_entry + checkpoint.entry_count <= recording.checkpoint_entries.size());
  }
  for (const CheckpointEntry& entry : recording.checkpoint_entries) PROMISE(entry.stack < recording.stacks.size());
  PROMISE(recording.damage.size() < 100);
  for (const std::string& text : recording.texts) {
    for (const char c : text) PROMISE(c != '\x1b' && c != '\0');
  }
}

}  // namespace
}  // namespace nodeleak::recording

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nodeleak::recording;
  const absl::StatusOr<Recording> recording = ParseRecording({reinterpret_cast<const char*>(data), size});
  if (!recording.ok()) {
    PROMISE(!recording.status().message().empty());
    return 0;
  }
  CheckFrames(*recording);
  CheckMemory(*recording);
  CheckOthers(*recording);
  return 0;
}
