// Outside, tests only. Makes recordings of any content as the shim writes them: extents that double, shards with linear
// probing. Nothing here is shared with the reader but layout.h, so that a mistake in one shows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "recording/layout.h"

namespace nodeleak::recording {

// A fresh builder is a node process 4242 that was killed (nobody has its start time), with node 0, stack 0 ("unknown"),
// and thread 0 ("node", main).
class RecordingBuilder {
 public:
  RecordingBuilder();

  // Everything that is one number: pid, exit_code, freeze_reason, totals, losses...
  Header& header() { return header_; }
  StringRef Text(absl::string_view text);
  void SetCommand(const std::vector<std::string>& arguments);
  void SetExecutable(absl::string_view path) { header_.executable = Text(path); }
  void SetVersions(absl::string_view node, absl::string_view v8);
  void SetCapability(CapabilityId id, CapabilityState state, absl::string_view why);
  void SetLoss(LossId id, uint64_t count, uint64_t bytes);
  // The end by process.exit(code), taken at node::AtExit `ns` after the start.
  void SetExited(int code, uint64_t ns);

  uint32_t AddModule(absl::string_view path, uint64_t bias = 0x400000, absl::string_view build_id = "");
  uint32_t AddJsFunction(absl::string_view name, absl::string_view file, uint32_t line = 0, uint32_t column = 0,
                         uint32_t flags = 0);
  uint32_t AddNativeFrame(uint32_t module, uint64_t address_in_file);
  // A function of this name and file that begins at (1, 1), running at line:column.
  uint32_t AddJsFrame(absl::string_view function, absl::string_view file, uint32_t line, uint32_t column = 1);
  uint32_t AddMarkerFrame(MarkerId marker);
  uint32_t AddFrame(const Frame& frame);

  // Frames innermost first, as in reports. Equal stacks of one thread are one stack.
  uint32_t AddStack(const std::vector<uint32_t>& frames, uint32_t thread = 0);
  Stack& stack(uint32_t index) { return stacks_[index]; }
  StackNode& stack_node(uint32_t index) { return stack_nodes_[index]; }

  // Also counts it as allocated. address 0: the next free one.
  uint64_t AddBlock(uint64_t size, uint32_t stack, uint32_t birth_tick = 0, uint32_t birth_gc = 0,
                    uint64_t address = 0);
  void AddBlocks(uint32_t count, uint64_t size, uint32_t stack, uint32_t first_tick = 0, uint32_t ticks_between = 0,
                 uint32_t birth_gc = 0);
  // Allocated and freed again: only the counters of the stack know.
  void AddFreed(uint32_t blocks, uint64_t size, uint32_t stack);

  void AddRange(const Range& range) { ranges_.push_back(range); }
  uint32_t AddThread(absl::string_view name, ThreadRole role, uint32_t worker_number = 0,
                     uint32_t creation_stack = kNoIndex);
  uint32_t AddIsolate(const Isolate& isolate);
  void AddHeapSpace(uint32_t isolate, absl::string_view name, uint64_t size, uint64_t used);
  void AddOlderBuffer(const OlderBuffer& buffer) { older_buffers_.push_back(buffer); }
  void AddBufferList(const BufferList& list) { buffer_lists_.push_back(list); }  // of the next isolate
  void AddTimelineSample(const TimelineSample& sample) { timeline_.push_back(sample); }
  void AddCheckpoint(uint64_t time_ns, uint32_t mark_compacts, const std::vector<CheckpointEntry>& entries,
                     uint64_t rss_bytes = 0);

  // Its uses and arenas are put behind those of the others.
  void AddPicture(MemoryPicture picture, const std::vector<MemoryUse>& uses, const std::vector<MemoryArena>& arenas);
  MemoryPicture& picture(uint32_t index) { return pictures_[index]; }

  std::vector<char> Build() const;
  // Mode 0600; false when it cannot be written.
  bool WriteTo(const std::string& path) const;

 private:
  Header header_ = {};
  std::string strings_;
  std::map<std::string, StringRef> known_strings_;
  std::vector<Module> modules_;
  std::vector<JsFunction> js_functions_;
  std::vector<Frame> frames_;
  std::vector<StackNode> stack_nodes_;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> known_nodes_;
  std::vector<Stack> stacks_;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> known_stacks_;
  std::vector<Block> blocks_;
  uint64_t next_address_ = 0x7f0000000010;
  std::vector<Range> ranges_;
  std::vector<Thread> threads_;
  std::vector<Isolate> isolates_;
  std::vector<HeapSpace> spaces_;
  std::vector<OlderBuffer> older_buffers_;
  std::vector<BufferList> buffer_lists_;
  std::vector<TimelineSample> timeline_;
  std::vector<Checkpoint> checkpoints_;
  std::vector<CheckpointEntry> checkpoint_entries_;
  std::vector<MemoryPicture> pictures_;
  std::vector<MemoryUse> picture_uses_;
  std::vector<MemoryArena> picture_arenas_;
};

}  // namespace nodeleak::recording
