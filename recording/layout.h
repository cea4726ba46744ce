// The recording: the one thing that the shim inside node and the tools outside share.
//
// Freestanding: fixed-width integers only, no pointers, no libc, no Abseil. A recording is the *state* of a process
// (who is alive), kept in one file that the shim maps MAP_SHARED, so it is complete after SIGKILL and readable while it
// is written. Readers trust nothing in it: every index, offset and count is validated by recording/reader.
//
//   - at file offset 0 the Header (two pages), then the fixed areas that Header names, then extents in the order they
//     were needed;
//   - a Table: entries 0..count-1 of one type, in extents that double in size (see Table);
//   - blocks: kShardCount open-addressing hash tables, each one extent that is replaced when it grows.
//
// All integers are little endian. Times are nanoseconds of CLOCK_MONOTONIC since Header::start_monotonic_ns, unless a
// name says ticks.
#pragma once

#include <stdint.h>

#include "recording/requests.h"

namespace nodeleak::recording {

inline constexpr uint64_t kMagic = 0x4b41454c45444f4eull;  // "NODELEAK", least significant byte first
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint32_t kNoIndex = 0xffffffffu;

// Of the file, at least: with less there would be hardly more than empty tables.
inline constexpr uint64_t kLeastRecordingBytes = 1 << 20;

// Birth times of blocks count in ticks of 4 ms (CLOCK_MONOTONIC_COARSE moves no faster): 32 bits last 198 days.
inline constexpr uint64_t kTickNanoseconds = 4'000'000;

// ----------------------------------------------------------------------------------------------------------------
// tables
//
// A Table grows by extents that double: extent k holds (first_entries << k) entries. The extent of entry i:
//   j = i + first_entries;  k = log2(j) - log2(first_entries);  position = j - (first_entries << k)
// first_entries is a power of two. Entries below `count` are complete (count is stored with release order after the
// entry).
enum class TableId : uint32_t {
  kModules = 0,        // Module
  kStringBytes,        // char: all strings, back to back; a StringRef names a span of it
  kJsFunctions,        // JsFunction
  kFrames,             // Frame
  kStackNodes,         // StackNode
  kStacks,             // Stack
  kRanges,             // Range: sorted by start, see RangesHeader
  kThreads,            // Thread
  kIsolates,           // Isolate
  kTimeline,           // TimelineSample
  kCheckpoints,        // Checkpoint
  kCheckpointEntries,  // CheckpointEntry
  kSpaces,             // HeapSpace
  kMemoryPictures,     // MemoryPicture
  kMemoryUses,         // MemoryUse
  kMemoryArenas,       // MemoryArena
  kOwnMappings,        // OwnMapping
  kFreedByGc,          // FreedByGc: entry i is of stack i
  kGcAnswers,          // GcAnswer
  kOlderBuffers,       // OlderBuffer
  kBufferLists,        // BufferList
  kCount
};
inline constexpr uint32_t kTableCount = static_cast<uint32_t>(TableId::kCount);
inline constexpr uint32_t kMaxTables = 24;
inline constexpr uint32_t kMaxExtents = 26;

struct Table {
  uint32_t entry_bytes;           // sizeof the entry type when written; a reader refuses another size
  uint32_t first_entries;         // power of two
  uint64_t count;                 // entries that are complete
  uint64_t extents[kMaxExtents];  // file offsets; 0: not allocated
};
static_assert(sizeof(Table) == 224);

// A span of kStringBytes: UTF-8, not terminated. Length 0 is the empty string.
struct StringRef {
  uint32_t offset;
  uint32_t length;
};

// ----------------------------------------------------------------------------------------------------------------
// process
enum class ProcessState : uint32_t {
  kStarting = 0,
  kRecording = 1,
  kFrozen = 2,  // the picture is taken; what node does in its teardown is no longer recorded
  kEnded = 3,   // the process said how it ends (exit code is known)
  kDetached = 4,
};

// Why the picture was frozen. kNone after SIGKILL, SIGSEGV or power cut: the recording is as it stood.
enum class FreezeReason : uint32_t {
  kNone = 0,
  kAtExit = 1,      // node::AtExit of the main environment: natural end, process.exit, uncaught exception...
  kExitCall = 2,    // exit() / quick_exit() / _exit() without node::AtExit before it
  kLibcAtExit = 3,  // the end of main() of a program that is not node
  kSignal = 4,      // default SIGTERM / SIGINT / SIGHUP, see end_signal
  kAbort = 5,
  kDetach = 6,
  kExec = 7,     // the process replaced itself by exec
  kTrouble = 8,  // the shim stopped watching by itself; losses say why
};

enum class GcAtEnd : uint32_t { kNotDone = 0, kDone = 1, kOff = 2, kNotReachable = 3 };

// What the shim can do in this process, one row each. Shown by `doctor` and in the report's "capabilities".
enum class CapabilityId : uint32_t {
  kNativeStacks = 0,
  kJsFrames,
  kJsNames,
  kJsLines,
  kOptimizedFrames,
  kWasmFrames,
  kGcEvents,
  kForcedGc,
  kHeapStatistics,
  kEndOfProcess,
  kMappings,
  kAllocations,
  kCount
};
enum class CapabilityState : uint32_t { kUnknown = 0, kFull = 1, kDegraded = 2, kAbsent = 3 };
struct Capability {
  uint32_t state;  // CapabilityState
  uint32_t reserved;
  StringRef why;  // one clause; empty when kFull
};

// What was not recorded, and why. Every counter is shown in the report when it is not 0.
enum class LossId : uint32_t {
  kBlocksTableFull = 0,  // block not inserted: --max-recording reached, disk full
  kStacksTableFull,      // stack, frame or string not stored: recorded under stack 0 ("unknown")
  kRangesTableFull,
  kLockTimeout,         // gave up waiting for one of our own locks
  kReentry,             // hook entered again by a signal handler; seen, not recorded
  kEarly,               // served before the shim was ready
  kUnwindFailed,        // stack cut short by a frame that could not be unwound
  kFrozenWhileRunning,  // blocks allocated after the shim stopped watching by itself
  kCount
};
struct Loss {
  uint64_t count;
  uint64_t bytes;
};

// ----------------------------------------------------------------------------------------------------------------
// modules and frames
//
// A mapped ELF file. Never removed; the same file loaded again gets a new entry.
struct Module {
  StringRef path;
  uint8_t build_id[20];
  uint32_t build_id_bytes;  // 0: none
  uint64_t bias;            // load address minus p_vaddr of the first PT_LOAD
  uint64_t start, end;      // lowest and one past the highest mapped address
  uint64_t loaded_ns;
  uint64_t unloaded_ns;    // 0: still loaded
  uint32_t is_executable;  // 1: the main program
  uint32_t reserved;
};
static_assert(sizeof(Module) == 80);

// A JavaScript function as V8 names it, resolved once by the shim.
struct JsFunction {
  StringRef name;   // "" : anonymous; inferred names as V8 gives them
  StringRef file;   // as a path where V8 has a file: URL; "node:fs"; "wasm://wasm/1a2b"; "" unknown
  StringRef where;  // eval and new Function: where the code was created, "file:line:column (function)"; else empty
  uint32_t line;    // of the function's start, 1-based; 0 unknown
  uint32_t column;  // 1-based
  uint32_t flags;   // JsFunctionFlag
  uint32_t reserved;
};
static_assert(sizeof(JsFunction) == 40);
enum JsFunctionFlag : uint32_t { kJsEval = 1, kJsBuiltin = 2, kJsNameInferred = 4, kJsTopLevel = 8 };

enum class FrameType : uint8_t {
  kNative = 1,   // module + value = virtual address in the file (pc - bias), of the return address
  kJs = 2,       // function, line, column
  kWasm = 3,     // function (name and file), value = offset of the call in the module's bytes, 0 unknown
  kMarker = 4,   // value is a MarkerId: something could not be walked or was left out, and why
  kJsNative = 5  // JavaScript builtin (Array.map...): function names it, no line
};
enum class MarkerId : uint64_t {
  kNone = 0,
  kTruncated = 1,          // depth limit: frames in the middle left out
  kUnwindStopped = 2,      // no unwind rule at this frame
  kUnknownCode = 3,        // pc in no known code
  kJsUnreadable = 4,       // JavaScript frames that this V8's layout does not allow to read
  kJsFunctionUnknown = 5,  // a JavaScript frame whose function could not be read
  kTableFull = 6,          // the stack could not be stored
  kNotWalked = 7,          // stack deliberately not taken (early start, unsafe place)
  kCount
};
// A frame as a person sees it: interned, so equal frames have equal indices.
struct Frame {
  uint8_t type;  // FrameType
  uint8_t tier;  // kJs: 0 unknown 1 interpreted 2 baseline 3 maglev 4 turbofan (of the first sighting; not part of the
                 // identity)
  uint8_t inlined;  // kJs, kWasm: inlined into optimized code (of the first sighting)
  uint8_t reserved;
  uint32_t module_or_function;  // kNative: Module; kJs, kJsNative, kWasm: JsFunction; kNoIndex when unknown
  uint64_t value;               // kJs: line << 32 | column (1-based, 0 unknown)
};
static_assert(sizeof(Frame) == 16);

// Stacks share their outer frames: node 0 is the root; a stack is its innermost node.
struct StackNode {
  uint32_t parent;  // outer node, smaller index; node 0 is its own parent
  uint32_t frame;
};

// Counters of one distinct (stack, thread) pair. Stack 0 is "unknown". Relaxed atomics: totals, not a snapshot.
struct Stack {
  uint32_t node;    // innermost StackNode
  uint32_t thread;  // Thread index; threads of one pool share their first member's
  uint32_t depth;   // frames
  uint32_t flags;   // StackFlag
  uint64_t allocated_bytes, allocated_blocks;
  uint64_t freed_bytes, freed_blocks;
  uint32_t first_tick, last_tick;  // of an allocation
  uint64_t at_checkpoint;          // the writer's: sum of the four totals when a checkpoint last looked
};
static_assert(sizeof(Stack) == 64);
enum StackFlag : uint32_t { kStackTruncated = 1, kStackIncomplete = 2, kStackMapping = 4 };

// ----------------------------------------------------------------------------------------------------------------
// blocks
//
// One live malloc block.
//                                              63           44 43        38 37                      0
//   address        8 bytes      start of the block; 0: empty slot
//   size_and_gc    8 bytes      | birth GC (20, sat.) | sample rate |   size (38, saturates) |
//   stack          4 bytes      Stack index
//   birth_tick     4 bytes      ticks since start
struct Block {
  uint64_t address;
  uint64_t size_and_gc;
  uint32_t stack;
  uint32_t birth_tick;
};
static_assert(sizeof(Block) == 24);
inline constexpr uint32_t kBlockSizeBits = 38;
inline constexpr uint32_t kBlockRateBits = 6;
inline constexpr uint32_t kMaxSampleRate = 40;
inline constexpr uint64_t kSampleAutomatically = ~uint64_t{0};  // asked for instead of a number of bytes
inline constexpr uint64_t kMaxBlockBytes = (1ull << kBlockSizeBits) - 1;
inline constexpr uint32_t kMaxBirthGc = (1u << 20) - 1;
inline constexpr uint64_t PackSizeAndGc(uint64_t size, uint32_t gc, uint32_t rate = 0) {
  return (size < kMaxBlockBytes ? size : kMaxBlockBytes) | static_cast<uint64_t>(rate) << kBlockSizeBits |
         static_cast<uint64_t>(gc < kMaxBirthGc ? gc : kMaxBirthGc) << (kBlockSizeBits + kBlockRateBits);
}
inline constexpr uint64_t BlockSize(const Block& block) { return block.size_and_gc & kMaxBlockBytes; }
inline constexpr uint32_t BlockRate(const Block& block) {
  return static_cast<uint32_t>(block.size_and_gc >> kBlockSizeBits) & ((1u << kBlockRateBits) - 1);
}
inline constexpr uint32_t BlockBirthGc(const Block& block) {
  return static_cast<uint32_t>(block.size_and_gc >> (kBlockSizeBits + kBlockRateBits));
}

// Sampling by bytes, one in 2^rate of them: a block of fewer bytes than that was recorded with the probability
// 1 - exp(-size / 2^rate), and stands for 1 / probability blocks like it. Rate 0: it was sure to be recorded.
// x below 1: 1 / (1 - exp(-x)) by its series, right to 1e-6.
inline constexpr double SampleWeight(uint64_t size, uint32_t rate) {
  if (rate == 0 || rate > kMaxSampleRate) return 1;
  const double x = static_cast<double>(size == 0 ? 1 : size) / static_cast<double>(1ull << rate);
  return x < 1 ? 1 / x + 0.5 + x / 12 - x * x * x / 720 : 1;
}
// The same as a whole number: rounded up or down by the address, right on average, and each time the same.
inline constexpr uint64_t BlocksStoodFor(const Block& block) {
  if (BlockRate(block) == 0) return 1;
  const double weight = SampleWeight(BlockSize(block), BlockRate(block));
  const uint64_t whole = static_cast<uint64_t>(weight);
  const double fraction = static_cast<double>((block.address >> 4) * 0x9e3779b97f4a7c15ull >> 40) / (1 << 24);
  return whole + (fraction < weight - static_cast<double>(whole) ? 1 : 0);
}

// A shard is linear probing over its Blocks. `sequence` is its lock and its version: odd while a thread
// changes it.
inline constexpr uint32_t kShardCount = 256;
struct alignas(64) Shard {
  uint32_t sequence;
  uint32_t capacity;  // entries
  uint64_t offset;    // file offset of the entries; changes when the shard grows
  uint32_t count;     // live entries
  uint32_t reserved0;
  uint64_t live_bytes;  // of all blocks that the entries stand for
  uint32_t reserved[8];
};
static_assert(sizeof(Shard) == 64);

// ----------------------------------------------------------------------------------------------------------------
// ranges (mmap family)
enum RangeFlag : uint32_t {
  kRangeFile = 1,  // maps a file
  kRangeShared = 2,
  kRangeThreadStack = 4,
  kRangeBrk = 8,  // the program break
  kRangeStackUnknown = 16,
  kRangeCommitted = 32  // got its access later than it was mapped; its birth is that
};
// Part of a mapping made while we watched. A partial unmap splits it; mprotect changes `committed` only by splitting
// too.
struct Range {
  uint64_t start, end;
  uint32_t stack;  // Stack index
  uint32_t birth_tick;
  uint32_t birth_gc;
  uint32_t flags;       // RangeFlag
  uint32_t protection;  // PROT_*; PROT_NONE: reserved, not committed
  uint32_t reserved;
};
static_assert(sizeof(Range) == 40);
// kRanges is kept sorted in place. Its version is Header::ranges_sequence (odd while it changes), its number of entries
// the table's count.

// ----------------------------------------------------------------------------------------------------------------
// threads and isolates
enum class ThreadRole : uint32_t {
  kUnknown = 0,
  kMain = 1,
  kWorker = 2,
  kNodeleak = 3,
  kOther = 4,
};
struct Thread {
  uint32_t tid;
  uint32_t role;            // ThreadRole; pools are told apart by the creation stack when the report is made
  char name[16];            // comm, NUL-padded
  uint32_t creation_stack;  // Stack of the pthread_create call; kNoIndex: main or unknown
  uint32_t worker_number;   // 1, 2... for threads that got an isolate, in the order of their creation; node's threadId
                            // in practice
  uint64_t start_ns, end_ns;        // 0: still there
  uint64_t stack_start, stack_end;  // of the thread's stack memory
  uint64_t start_routine;           // address
};
static_assert(sizeof(Thread) == 72);

struct Isolate {
  uint32_t thread;      // Thread index
  uint32_t generation;  // 1, 2...: isolate addresses are reused, generations are not
  uint64_t address;
  uint64_t registered_ns, disposed_ns;
  uint64_t scavenges, scavenge_ns;  // by V8's GC callbacks: GCType scavenge and minor mark-sweep
  uint64_t mark_compacts, mark_compact_ns;
  uint64_t other_gcs, other_gc_ns;  // incremental marking steps, weak callbacks
  uint64_t last_mark_compact_ns;
  // v8::HeapStatistics at the last safe point; bytes
  uint64_t statistics_ns;
  uint64_t heap_total, heap_physical, heap_used, heap_limit, malloced, peak_malloced, external, global_handles;
  uint64_t native_contexts, detached_contexts;
  uint64_t heap_used_after_gc, after_gc_ns;  // right after the last mark-compact; ns 0: none yet
  uint64_t loop_turns, first_turn_ns;        // polls of its event loop; ns 0: none yet
  uint64_t previous_mark_compact_ns;         // the last but one
  uint64_t heap_used_least;  // since the last timeline sample, at collections and safe points; 0: no reading since
  // What the collector reckons with: array buffers, and what others told V8 by AdjustAmountOfExternalAllocatedMemory,
  // which `external` is without. kNoExternalTold: not known.
  uint64_t external_told;
};
inline constexpr uint64_t kNoExternalTold = ~uint64_t{0};
static_assert(sizeof(Isolate) == 232);

// One V8 heap space at the last safe point of an isolate.
struct HeapSpace {
  uint32_t isolate;
  uint32_t reserved;
  StringRef name;
  uint64_t size, used, available, physical;
};
static_assert(sizeof(HeapSpace) == 48);

// ----------------------------------------------------------------------------------------------------------------
// array buffers that were there before the process was attached to
//
// By V8's own list of each isolate, without those that are Blocks or lie in Ranges. One that is freed stays, marked.
enum OlderBufferFlag : uint32_t { kOlderFreed = 1 };
struct OlderBuffer {
  uint64_t address, bytes;
  uint32_t isolate;  // whose list had it last
  uint32_t flags;    // OlderBufferFlag; from bit 8 on the number of the reading that found it last
};
static_assert(sizeof(OlderBuffer) == 24);

enum class BufferListState : uint32_t {
  kNotRead = 0,   // the isolate came to no safe point
  kWhole = 1,     // and it added up to what V8 has counted
  kCut = 2,       // longer than we had time or room for
  kSweeping = 3,  // V8 was sweeping: the rest of it was elsewhere
  kUnknown = 4,   // this V8 keeps it in a way that we do not know
};
// What the last reading of an isolate's list found. Entry i is of isolate i; those behind its end were not read.
struct BufferList {
  uint32_t state;     // BufferListState
  uint32_t pause_us;  // that reading it took
  uint64_t read_ns;
  uint64_t buffers, bytes;  // in the list, new ones too
};
static_assert(sizeof(BufferList) == 32);

// ----------------------------------------------------------------------------------------------------------------
// time series
inline constexpr uint32_t kMaxTimelineSamples = 4096;
struct TimelineSample {
  uint64_t time_ns;
  uint64_t rss_bytes;
  uint64_t live_bytes, live_blocks;   // malloc blocks
  uint64_t mapped_bytes;              // anonymous mappings made while we watched, committed
  uint64_t heap_used;                 // all isolates, at their last safe point
  uint32_t mark_compacts, scavenges;  // all isolates
  uint64_t heap_used_after_gc;        // all isolates, right after the last mark-compact of each that has had one
  uint64_t loop_turns;                // all isolates, those that have ended too
  // All isolates, the least since the sample before: so much can have been alive at most. 0: none was read since.
  uint64_t heap_used_least;
};
static_assert(sizeof(TimelineSample) == 80);

// A checkpoint is the per-stack state at one moment: entries first_entry .. first_entry+entry_count of
// kCheckpointEntries. At most kMaxCheckpoints are kept: when full, every second one goes and the interval doubles.
inline constexpr uint32_t kMaxCheckpoints = 64;
struct Checkpoint {
  uint64_t time_ns;
  uint32_t mark_compacts;
  uint32_t entry_count;
  uint64_t first_entry;
  uint64_t rss_bytes;
};
static_assert(sizeof(Checkpoint) == 32);
// Only stacks that allocated or freed since the checkpoint before (kCheckpointsAreChanges), by rising index; a stack
// that is left out has what it had. Without that flag: all stacks that have live blocks or allocated since.
struct CheckpointEntry {
  uint32_t stack;
  uint32_t live_blocks;  // saturates
  uint64_t live_bytes;
  uint64_t allocated_bytes;  // since the start
  uint64_t allocated_blocks;
};
static_assert(sizeof(CheckpointEntry) == 32);

// ----------------------------------------------------------------------------------------------------------------
// memory pictures: where the resident memory was at one moment
enum class PictureMoment : uint32_t {
  kNone = 0,
  kEnd = 1,       // at the freeze, after the full GC
  kPeak = 2,      // the last one taken while the RSS rose: the peak itself is less than 10 % above
  kRssLimit = 3,  // when the RSS crossed --on-rss
  kNow = 4,       // asked for; never stored
  kCount
};
// What a resident byte is. Each is one of these, so `resident` of all parts is the RSS.
enum class MemoryPart : uint32_t {
  kBlocks = 0,     // outstanding malloc blocks: the MemoryUses without kUseMapping
  kBlockOverhead,  // malloc's headers and rounding of those
  kMallocFree,     // the rest of malloc's memory: free, but kept
  kMappings,       // mappings that were made while we watched: the MemoryUses with kUseMapping
  kThreadStacks,
  kFiles,     // programs and libraries with their data, mapped files
  kShared,    // shared memory
  kNodeleak,  // the recording and the shim's own tables
  kUnexplained,
  kCount
};
enum PictureFlag : uint32_t {
  kPictureApproximate = 1,      // pagemap was not readable: touched parts are estimated
  kPictureCut = 2,              // blocks or mappings are missing: no memory, no time, or no room in the recording
  kPictureOtherAllocator = 4,   // malloc is not libc's
  kPictureRecordedAll = 8,      // the process was watched from its start: what is not outstanding is free
  kPictureLimitThrottles = 16,  // limit_bytes is memory.high: beyond it the kernel slows the process down
};
struct MemoryAmount {
  uint64_t mapped, resident;  // bytes
};
struct MemoryPicture {
  uint32_t sequence;  // odd while it is written
  uint32_t moment;    // PictureMoment
  uint32_t flags;     // PictureFlag
  uint32_t use_count, arena_count;
  uint32_t reserved;
  uint64_t first_use, first_arena;
  uint64_t time_ns;
  uint64_t rss_bytes;  // the sum of smaps, which is what smaps_rollup says
  uint64_t swapped_bytes, page_table_bytes;
  uint64_t limit_bytes, limit_used_bytes;  // of the control group that has the least left; 0: there is no limit
  MemoryAmount parts[static_cast<uint32_t>(MemoryPart::kCount)];
};
static_assert(sizeof(MemoryPicture) == 232);

enum MemoryUseFlag : uint32_t { kUseMapping = 1 };
// Outstanding memory of one stack.
struct MemoryUse {
  uint32_t stack;  // Stack index
  uint32_t flags;  // MemoryUseFlag
  uint64_t count;
  uint64_t bytes;     // asked for; of mappings what may be accessed
  uint64_t resident;  // of `bytes`
  uint64_t reserved;  // mapped without access
};
static_assert(sizeof(MemoryUse) == 40);

enum ArenaFlag : uint32_t {
  kArenaMain = 1,         // the program break
  kArenaWalked = 2,       // its chunks were read to the end: the fields from free_bytes on are known
  kArenaMappedBlocks = 4  // not an arena of glibc: mappings of single blocks, or another allocator's memory
};
struct MemoryArena {
  uint64_t address;  // of its first heap
  uint32_t flags;    // ArenaFlag
  uint32_t heaps;    // mappings it has
  uint64_t mapped, resident;
  uint64_t block_bytes;  // resident part of outstanding blocks, with their headers
  uint64_t free_bytes;   // in free chunks, touched or not; without the top
  uint64_t free_chunks;  // neighbours are one
  uint64_t largest_free_bytes;
  uint64_t top_bytes;     // free at the end
  uint64_t in_use_bytes;  // as glibc sees it: with what lies in its caches of small chunks
};
static_assert(sizeof(MemoryArena) == 80);

// Memory of the shim that no other table shows.
struct OwnMapping {
  uint64_t start, bytes;  // bytes 0: gone
};

// ----------------------------------------------------------------------------------------------------------------
// header
enum HeaderFlag : uint32_t {
  kIsNode = 1,
  kIsLauncher = 2,     // npm, npx, yarn...: recorded, but never "the" process when another one is there
  kIsRootCommand = 4,  // the command that the user gave
  kForkedChild = 8,
  kIsSnapshot = 16,        // a copy made while the process ran; what became of it later is not in here
  kIsAttached = 32,        // watched from the middle of its life on: what was allocated before is unknown
  kOtherAllocator = 64,    // malloc is not libc's
  kSampleAutomatic = 128,  // sample_bytes is the latest of several
  kCheckpointsAreChanges = 256,
  kFileSizeLimited = 512,  // RLIMIT_FSIZE leaves less room than --max-recording
};

struct alignas(4096) Header {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;    // sizeof(Header)
  uint64_t file_bytes;      // bytes in use, grows
  uint64_t max_file_bytes;  // --max-recording
  uint32_t flags;           // HeaderFlag
  uint32_t state;           // ProcessState
  // the process
  uint32_t pid, ppid;
  uint64_t start_realtime_ns;    // CLOCK_REALTIME when recording began
  uint64_t start_monotonic_ns;   // CLOCK_MONOTONIC at the same moment
  uint64_t process_start_ticks;  // field 22 of /proc/PID/stat: pid reuse is seen
  StringRef executable;
  StringRef command;  // arguments, each ended by a NUL byte
  StringRef working_directory;
  StringRef node_version;  // "v22.23.3"; empty: not node
  StringRef v8_version;
  // the end
  uint32_t freeze_reason;  // FreezeReason
  uint32_t gc_at_end;      // GcAtEnd
  uint64_t frozen_ns;
  uint64_t ended_ns;
  int32_t exit_code;                                     // -1 unknown
  int32_t end_signal;                                    // 0 none
  uint64_t live_bytes_before_gc, live_blocks_before_gc;  // at the freeze, before the forced GC
  uint64_t rss_at_freeze;
  // totals; written by the watcher thread now and then and at the freeze (the shards are exact at any time)
  uint64_t live_bytes, live_blocks;  // malloc blocks
  uint64_t mapped_bytes;             // ranges that are private, anonymous and not PROT_NONE
  uint64_t unknown_frees;
  uint64_t brk_bytes;
  uint32_t ranges_sequence;
  uint32_t major_gcs;      // of the main isolate
  uint64_t shards_offset;  // Shard[kShardCount]
  uint64_t last_alive_ns;  // written by the watcher thread: how recent the state is after SIGKILL
  uint64_t sample_bytes;   // --sample, as it is now; 0: every allocation
  Mailbox mailbox;
  Confirmation confirmation;  // the last one
  Capability capabilities[static_cast<uint32_t>(CapabilityId::kCount)];
  Loss losses[static_cast<uint32_t>(LossId::kCount)];
  Table tables[kMaxTables];
  uint64_t on_rss_bytes;       // --on-rss; 0: not asked for
  uint64_t on_rss_crossed_ns;  // 0: not yet
};
static_assert(sizeof(Header) == 8192);
// Who asks maps this page alone, writable.
static_assert(__builtin_offsetof(Header, mailbox) + sizeof(Mailbox) <= kPageBytes);

}  // namespace nodeleak::recording
