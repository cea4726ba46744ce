// Outside node. What a report says, before anybody decides how it looks: the C++ mirror of the JSON contract (version
// 1) plus the few things that only the text shows. Plain values, no behaviour; strings may hold any bytes (renderers
// make them presentable).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recording/layout.h"

namespace nodeleak::report {

// --- which memory it is, in the words of the contract. The order is the order of KindName's table.
enum class Kind : uint8_t {
  kArrayBuffer,
  kWasmMemory,
  kV8Heap,
  kV8Internal,
  kNode,
  kOpenSsl,
  kZlib,
  kBrotli,
  kIcu,
  kAres,
  kHttp2,
  kSqlite,
  kAddon,
  kLibc,
  kThreadStack,
  kMapping,
  kNative,
  kCount
};
const char* KindName(Kind kind);

// V8's own pages hold JavaScript objects, and stacks of threads are mostly untouched: neither is what the reader looks
// for, both are large. They are listed, but are no part of what is "outstanding" (Totals::live_bytes).
inline bool IsBackground(Kind kind) { return kind == Kind::kV8Heap || kind == Kind::kThreadStack; }

enum class Verdict : uint8_t { kGrowing, kLost, kBounded, kStartup, kGarbage, kPending, kAllocator, kReserved, kNew };
const char* VerdictName(Verdict verdict);

enum class Confidence : uint8_t { kHigh, kLikely, kLow };
const char* ConfidenceName(Confidence confidence);

// --- stacks
enum class FrameType : uint8_t { kJs, kNative, kWasm, kMarker };
const char* FrameTypeName(FrameType type);

// Of a builtin of JavaScript itself (Array.map): type js, no file, and this as its module. There is no line to show,
// and a reader that only knows js and native frames still does the right thing.
inline constexpr char kBuiltinModule[] = "builtin";

struct Frame {
  FrameType type = FrameType::kNative;
  std::string function;  // native: without parameters; marker: the sentence; "" unknown or anonymous (see module)
  std::string file;      // JS: path, "node:fs", "wasm://..."; native: source file where DWARF knows it
  uint32_t line = 0;     // 0 unknown
  uint32_t column = 0;
  std::string module;   // native: path of the ELF file; JS: kBuiltinModule or ""; eval: where it was created
  uint64_t offset = 0;  // native: virtual address in the module; wasm: of the call in the module's bytes
  bool inlined = false;
};

struct Site {  // the nearest application JavaScript frame
  std::string function, file;
  uint32_t line = 0, column = 0;
  std::string package;  // name@version; "" for the application itself

  bool operator==(const Site&) const = default;
};

// By the number of outstanding objects that such blocks belong to: where these objects were made.
struct LikelySite {
  Site site;
  uint64_t objects = 0, all_objects = 0;  // made there, and in all
};

struct Origin {  // the native function that asked for the memory
  std::string function, module, file;
  uint32_t line = 0;
  std::string package;

  bool operator==(const Origin&) const = default;
};

struct StackUse {
  uint64_t live_bytes = 0, live_blocks = 0;
  std::vector<Frame> frames;  // innermost first
};

struct SurvivedGcs {  // major collections that the outstanding blocks have met since their birth
  uint32_t min = 0, median = 0, max = 0;
};

// How fast survivors accumulate, and over which part of the run that was measured (seconds since its start).
struct GrowthRate {
  uint64_t bytes_per_second = 0;
  double blocks_per_second = 0;
  double from_seconds = 0, until_seconds = 0;
};

struct Group {
  std::string id;  // stable across runs: see GroupId
  Kind kind = Kind::kNative;
  Verdict verdict = Verdict::kNew;
  Confidence confidence = Confidence::kLow;
  std::vector<std::string> evidence;  // sentences
  uint64_t live_bytes = 0, live_blocks = 0;
  std::optional<uint64_t> live_bytes_error;  // of an estimate: 95 % are within so many bytes
  uint64_t allocated_bytes = 0, allocations = 0;
  uint64_t reserved_bytes = 0;                     // address space that is not memory; besides live_bytes
  uint64_t garbage_bytes = 0, garbage_blocks = 0;  // freed by the full GC; besides live_bytes
  uint64_t pending_bytes = 0, pending_blocks = 0;  // freed on the loop turns after it; besides live_bytes
  GrowthRate rate;                                 // of survivors; 0 unless growing
  std::optional<double> seconds_until_limit;       // of the container, at this rate alone; unset: no limit, no growth
  SurvivedGcs survived_gcs;
  double first_seen_seconds = 0, last_seen_seconds = 0;  // first and last allocation, since the start
  std::optional<Site> site;
  std::optional<LikelySite> likely_site;  // only when there is no site, see likely_sites.h
  std::optional<Origin> origin;
  std::vector<std::string> threads;
  std::vector<StackUse> stacks;  // heaviest first
};
inline const Site* SiteOrLikelySite(const Group& group) {  // nullptr: neither
  if (group.site.has_value()) return &*group.site;
  return group.likely_site.has_value() ? &group.likely_site->site : nullptr;
}
inline uint64_t FreedBytes(const Group& group) { return group.garbage_bytes + group.pending_bytes; }

// --- the process
enum class Ending : uint8_t { kExit, kSignal, kKilled, kRunning, kDetached, kExec };
const char* EndingName(Ending ending);

struct ProcessInfo {
  uint32_t pid = 0, ppid = 0;
  std::vector<std::string> command;
  std::string executable, working_directory;
  std::string node_version, v8_version;  // "" when it is not node
  uint64_t started_at_unix_ns = 0;
  bool is_attached = false;  // watched since started_at_unix_ns only: it had run before
  double duration_seconds = 0;
  Ending ending = Ending::kRunning;
  bool is_copy = false;  // made by `nodeleak snapshot`: kRunning was so then
  std::optional<int> exit_code;
  std::optional<int> signal;
  bool is_node = false, is_launcher = false, is_root_command = false;
};

enum class CapabilityState : uint8_t { kFull, kDegraded, kAbsent };
const char* CapabilityStateName(CapabilityState state);
struct Capability {
  std::string name;
  CapabilityState state = CapabilityState::kFull;
  std::string why;
};

struct Lost {
  uint64_t blocks = 0, stacks = 0, bytes = 0;
};
struct Totals {
  uint64_t live_bytes = 0, live_blocks = 0;  // outstanding: of all kinds that are not background
  std::optional<uint64_t> live_bytes_error;  // as in Group
  uint64_t allocated_bytes = 0, allocations = 0;
  uint64_t stacks = 0, major_gcs = 0;
  Lost lost;
  std::optional<uint64_t> unknown_frees;  // frees of blocks from before the attach; not set when that is not known
};

struct ThreadTotal {
  std::string name;
  uint64_t live_bytes = 0, live_blocks = 0;  // as in Totals
};

struct KindTotal {
  Kind kind = Kind::kNative;
  uint64_t live_bytes = 0, live_blocks = 0;
};

// Of a kind as a whole. V8's pages are judged by what full GCs left in the JavaScript heap, the others by their groups.
struct KindVerdict {
  Kind kind = Kind::kNative;
  Verdict verdict = Verdict::kNew;
  Confidence confidence = Confidence::kLow;
  std::vector<std::string> evidence;
  GrowthRate rate;     // blocks_per_second is 0 for V8's pages
  std::string advice;  // what to do next; "" when there is nothing to say
};

inline constexpr char kJsHeapLine[] = "JavaScript heap";
struct MemoryLine {
  std::string name;
  uint64_t bytes = 0;
  std::optional<uint64_t> touched_bytes;  // resident part, where it is known
  std::string detail;
  std::vector<MemoryLine> parts = {};  // what it is made of, as far as that is known; need not add up
};
// Where the resident memory was at one moment. What lines have touched adds up to rss_bytes; lines that have touched
// nothing (reserved address space, page tables) are told besides.
struct Memory {
  std::string at;  // "end", "peak", "rss-limit", "now"; "estimate": nobody looked, only the recording's tables tell
  double t_seconds = 0;  // since the start; 0: not known
  uint64_t rss_bytes = 0;
  std::vector<MemoryLine> lines;
  uint64_t limit_bytes = 0;         // of the container or control group; 0: none
  uint64_t limit_used_bytes = 0;    // by everything in that group, file cache too
  bool limit_throttles = false;     // memory.high: beyond it the process is slowed down, not killed
  std::vector<std::string> advice;  // sentences, only what the numbers back
  std::vector<std::string> notes;   // what to know before believing the numbers
};

struct TimelinePoint {
  double t_seconds = 0;
  uint64_t rss_bytes = 0, live_bytes = 0, heap_used = 0, major_gcs = 0;
  std::vector<KindTotal> by_kind;  // only at checkpoints; empty in between
};

// What became of one isolate that was asked for a full collection.
struct IsolateAnswer {
  std::string thread;
  recording::GcAnswerState state = recording::GcAnswerState::kAsked;
  uint32_t turns = 0;  // of its event loop between the two collections
  bool by_interrupt = false;
  double waited_ms = 0, first_pause_ms = 0, second_pause_ms = 0;
};

// What V8 believes to be kept alive outside its heap by its objects: it collects when that grows. Absent: not read.
struct ExternalMemory {
  uint64_t v8_bytes = 0;            // all isolates, node's `external`; it lags
  uint64_t told_bytes = 0;          // what V8's collector reckons with: array buffers, and what addons told it
  uint64_t array_buffer_bytes = 0;  // measured, of the same
  struct Addon {
    std::string name;  // package, or the file
    uint64_t held_bytes = 0;
    uint64_t mapped_bytes = 0;  // besides: touched, of mappings of its own
  };
  std::vector<Addon> addons;           // heaviest first
  std::vector<std::string> sentences;  // where the two do not fit
};

// Array buffers from before the attach, by V8's own lists: sizes, no stacks. In no other number.
struct OlderBuffers {
  CapabilityState state = CapabilityState::kAbsent;  // of the lists
  std::string why;
  double read_at_seconds = 0;   // when a list was read last, since the start; frees are known until the end
  double longest_pause_ms = 0;  // of a thread whose list was read last time
  uint64_t live_bytes = 0, live_blocks = 0;
  uint64_t freed_bytes = 0, freed_blocks = 0;  // since they were listed
  struct Size {
    uint64_t bytes = 0, live_blocks = 0;  // bytes of each
    uint64_t live_bytes() const { return bytes * live_blocks; }
  };
  std::vector<Size> sizes;  // most bytes first
};

// All that grows, the JavaScript heap too, against the container's limit (Memory::limit_bytes).
struct Outlook {
  uint64_t bytes_per_second = 0;
  std::optional<double> seconds_until_limit;
};

struct Report {
  ProcessInfo process;
  std::vector<Capability> capabilities;
  Totals totals;
  std::vector<KindTotal> kinds;            // heaviest first
  std::vector<KindVerdict> kind_verdicts;  // of each of these, in the same order
  Memory memory;                           // at the end; while it runs or when it was killed the latest that there is
  std::vector<Memory> other_memory;        // at other moments
  Outlook outlook;
  std::optional<ExternalMemory> external;
  std::optional<OlderBuffers> older_buffers;  // only of a node that was attached to
  uint64_t rss_bytes = 0;                     // when the recording ended
  std::vector<TimelinePoint> timeline;
  std::vector<Group> groups;  // heaviest first

  // Only for the text: what a person must know before believing the numbers, one sentence each.
  std::vector<std::string> warnings;
  std::vector<ThreadTotal> threads;                  // heaviest first
  uint64_t reserved_bytes = 0;                       // address space that is not memory
  std::optional<uint64_t> garbage_bytes;             // freed by the full collection; absent when there was none
  uint64_t pending_bytes = 0;                        // freed by finalizers on the turns of the event loop after it
  uint64_t turns_at_end = 0;                         // such turns at the end; 0: finalizers had none
  std::vector<IsolateAnswer> answers;                // to `nodeleak gc`
  uint64_t sample_bytes = 0;                         // 0: every allocation was recorded
  bool sample_automatic = false;                     // sample_bytes is the latest of several
  uint64_t left_out_groups = 0, left_out_bytes = 0;  // by top and min_bytes
};

}  // namespace nodeleak::report
