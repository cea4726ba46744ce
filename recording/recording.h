// Outside. A recording as the tools see it: read once, validated, plain vectors. Every index in here is in range or
// kNoIndex, every text is UTF-8 without control characters, and what was not whole in the file is said in `damage`.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "recording/layout.h"

namespace nodeleak::recording {

// How the process ended, as far as the recording and /proc tell.
enum class Ending {
  kRunning,   // or was when the copy was made (kIsSnapshot)
  kExited,    // exit_code, -1 when it is not known
  kSignaled,  // end_signal
  kKilled,    // SIGKILL, a crash, power cut: the recording is as it stood
  kDetached,
  kReplaced,  // by exec
};

struct CapabilityInfo {
  CapabilityState state = CapabilityState::kUnknown;
  absl::string_view why;  // empty when full
};

struct ProcessInfo {
  uint32_t pid = 0, ppid = 0;
  uint32_t flags = 0;  // HeaderFlag
  ProcessState state = ProcessState::kStarting;
  FreezeReason freeze_reason = FreezeReason::kNone;
  GcAtEnd gc_at_end = GcAtEnd::kNotDone;
  Ending ending = Ending::kKilled;
  int32_t exit_code = -1;  // -1 unknown
  int32_t end_signal = 0;  // 0 none
  uint64_t start_realtime_ns = 0;
  uint64_t start_monotonic_ns = 0;
  uint64_t process_start_ticks = 0;
  uint64_t frozen_ns = 0, ended_ns = 0, last_alive_ns = 0;  // since start; 0: not yet
  uint64_t duration_ns = 0;  // what the picture covers: until the freeze, the end, the last sign of life, or now
  uint64_t sample_bytes = 0;
  uint64_t on_rss_bytes = 0, on_rss_crossed_ns = 0;  // --on-rss; 0: not asked for, not crossed
  absl::string_view executable, working_directory, node_version, v8_version;
  std::vector<absl::string_view> command;  // may hold line breaks and tabs (node -e)

  bool IsNode() const { return (flags & kIsNode) != 0; }
};

struct ModuleInfo {
  absl::string_view path;
  std::string build_id;  // raw bytes; empty: none
  uint64_t bias = 0;
  uint64_t start = 0, end = 0;
  uint64_t loaded_ns = 0, unloaded_ns = 0;  // unloaded 0: still loaded
  bool is_executable = false;
};

struct JsFunctionInfo {
  absl::string_view name, file, where;
  uint32_t line = 0, column = 0;  // 1-based; 0 unknown
  uint32_t flags = 0;             // JsFunctionFlag
};

struct ThreadInfo {
  uint32_t tid = 0;
  ThreadRole role = ThreadRole::kUnknown;
  absl::string_view name;
  uint32_t creation_stack = kNoIndex;
  uint32_t worker_number = 0;
  uint64_t start_ns = 0, end_ns = 0;
  uint64_t stack_start = 0, stack_end = 0;
  uint64_t start_routine = 0;
};

struct HeapSpaceInfo {
  uint32_t isolate = kNoIndex;
  absl::string_view name;
  uint64_t size = 0, used = 0, available = 0, physical = 0;
};

// A memory picture that is whole, with what belongs to it.
struct PictureInfo {
  MemoryPicture picture = {};
  std::vector<MemoryUse> uses;
  std::vector<MemoryArena> arenas;
  bool unrecorded = false;  // taken of a process without a recording

  PictureMoment moment() const { return static_cast<PictureMoment>(picture.moment); }
  const MemoryAmount& part(MemoryPart part) const { return picture.parts[static_cast<uint32_t>(part)]; }
};

struct Totals {
  uint64_t live_bytes = 0, live_blocks = 0;  // added up from what `blocks` stand for
  uint64_t counted_bytes = 0;                // as the shards counted them; differs when damaged
  uint64_t counted_blocks = 0;               // entries of the shards
  uint64_t allocated_bytes = 0, allocated_blocks = 0, freed_bytes = 0, freed_blocks = 0;  // added up from `stacks`
  uint64_t mapped_bytes = 0, brk_bytes = 0;
  uint64_t unknown_frees = 0;
  uint64_t live_bytes_before_gc = 0, live_blocks_before_gc = 0;  // at the freeze, before the forced GC
  uint64_t rss_at_freeze = 0;
  uint32_t major_gcs = 0;  // of the main isolate
  uint64_t file_bytes = 0;
};

// Move-only: texts are views into `texts`, which a move leaves where they are.
struct Recording {
  Recording() = default;
  Recording(Recording&&) = default;
  Recording& operator=(Recording&&) = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  ProcessInfo process;
  Totals totals;
  CapabilityInfo capabilities[static_cast<uint32_t>(CapabilityId::kCount)];
  Loss losses[static_cast<uint32_t>(LossId::kCount)] = {};

  std::vector<ModuleInfo> modules;
  std::vector<JsFunctionInfo> js_functions;
  std::vector<Frame> frames;           // a frame that could not be read is a kMarker with MarkerId::kNone
  std::vector<StackNode> stack_nodes;  // parent < own index, but for the root 0
  std::vector<Stack> stacks;           // never empty: stack 0 is "unknown"
  std::vector<Block> blocks;           // sorted by address, each address once
  std::vector<Range> ranges;           // sorted by start, none overlaps another
  std::vector<ThreadInfo> threads;
  std::vector<Isolate> isolates;
  std::vector<HeapSpaceInfo> spaces;
  std::vector<TimelineSample> timeline;
  std::vector<Checkpoint> checkpoints;
  std::vector<CheckpointEntry> checkpoint_entries;  // what changed since the checkpoint before
  std::vector<PictureInfo> pictures;                // at most one of each moment
  std::vector<OwnMapping> own_mappings;
  Confirmation confirmation = {};          // the last one; kind is a known one
  std::vector<FreedByGc> freed_by_gc;      // entry i is of stack i; those behind its end freed nothing
  std::vector<GcAnswer> gc_answers;        // state is a known one
  std::vector<OlderBuffer> older_buffers;  // sorted by address, each address once
  std::vector<BufferList> buffer_lists;    // entry i is of isolate i; state is a known one

  std::vector<std::string> damage;  // sentences: what is not whole
  std::vector<std::string> notes;   // sentences: normal for a process that runs on, nothing is broken

  std::deque<std::string> texts;

  // Indices into `frames`, innermost first. Empty for a stack that is not known or not there. Never more than
  // kMaxStackDepth: the innermost ones then.
  std::vector<uint32_t> FramesOfStack(uint32_t stack) const;
};

// The shim cuts at 512 frames; deeper ones come from a damaged or hostile file.
inline constexpr uint32_t kMaxStackDepth = 1024;

}  // namespace nodeleak::recording
