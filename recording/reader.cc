#include "recording/reader.h"

#include <time.h>

#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "recording/process.h"
#include "recording/raw_reader.h"
#include "recording/texts.h"
#include "recording/validate.h"

namespace nodeleak::recording {
namespace {

// Tables whose entries hold texts: kept raw until the strings are read, which is last. And the pictures, of which not
// all are used.
struct RawTables {
  std::vector<MemoryPicture> pictures;
  std::vector<MemoryUse> picture_uses;
  std::vector<MemoryArena> picture_arenas;
  std::vector<Module> modules;
  std::vector<JsFunction> js_functions;
  std::vector<Thread> threads;
  std::vector<HeapSpace> spaces;
  std::vector<char> strings;
};

// What the writer was in the middle of.
struct TornParts {
  bool blocks = false;
  bool ranges = false;
};

template <typename Enum>
Enum KnownOr(uint32_t value, Enum highest, Enum otherwise, const char* what, Recording* recording) {
  if (value <= static_cast<uint32_t>(highest)) return static_cast<Enum>(value);
  recording->damage.push_back(absl::StrCat("the header says ", what, " ", value, ", which means nothing"));
  return otherwise;
}

Ending FindEnding(const ProcessInfo& process, bool running) {
  if (process.state == ProcessState::kDetached || process.freeze_reason == FreezeReason::kDetach) {
    return Ending::kDetached;
  }
  if (process.freeze_reason == FreezeReason::kExec) return Ending::kReplaced;
  const bool in_copy = (process.flags & kIsSnapshot) != 0;
  if ((running || in_copy) && process.state != ProcessState::kEnded) return Ending::kRunning;
  if (process.end_signal != 0) return Ending::kSignaled;
  if (process.state == ProcessState::kEnded) return Ending::kExited;
  switch (process.freeze_reason) {
    case FreezeReason::kAtExit:
      // node also runs these functions before it sends itself a signal by process.kill: then no exit call follows.
      return process.exit_code >= 0 ? Ending::kExited : Ending::kKilled;
    case FreezeReason::kExitCall:
    case FreezeReason::kLibcAtExit:
      return Ending::kExited;
    default:
      return Ending::kKilled;
  }
}

uint64_t NanosecondsSince(uint64_t start_monotonic_ns) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const uint64_t now_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  return now_ns > start_monotonic_ns ? now_ns - start_monotonic_ns : 0;
}

uint64_t FindDuration(const ProcessInfo& process) {
  if (process.frozen_ns != 0) return process.frozen_ns;
  if (process.ended_ns != 0) return process.ended_ns;
  const bool now = process.ending == Ending::kRunning && (process.flags & kIsSnapshot) == 0;
  if (now) return NanosecondsSince(process.start_monotonic_ns);
  return process.last_alive_ns;
}

void FillProcess(const Header& header, bool running, Recording* recording) {
  ProcessInfo& process = recording->process;
  process.pid = header.pid;
  process.ppid = header.ppid;
  process.flags = header.flags;
  process.state = KnownOr(header.state, ProcessState::kDetached, ProcessState::kRecording, "state", recording);
  process.freeze_reason =
      KnownOr(header.freeze_reason, FreezeReason::kTrouble, FreezeReason::kNone, "freeze reason", recording);
  process.gc_at_end = KnownOr(header.gc_at_end, GcAtEnd::kNotReachable, GcAtEnd::kNotDone, "gc at end", recording);
  process.exit_code = header.exit_code;
  process.end_signal = header.end_signal;
  if (process.end_signal < 0 || process.end_signal > SIGRTMAX) {
    recording->damage.push_back(absl::StrCat("the header says signal ", header.end_signal, ", which means nothing"));
    process.end_signal = 0;
  }
  if (process.freeze_reason == FreezeReason::kAbort && process.end_signal == 0) process.end_signal = SIGABRT;
  process.start_realtime_ns = header.start_realtime_ns;
  process.start_monotonic_ns = header.start_monotonic_ns;
  process.process_start_ticks = header.process_start_ticks;
  process.frozen_ns = header.frozen_ns;
  process.ended_ns = header.ended_ns;
  process.last_alive_ns = header.last_alive_ns;
  process.sample_bytes = header.sample_bytes;
  process.on_rss_bytes = header.on_rss_bytes;
  process.on_rss_crossed_ns = header.on_rss_crossed_ns;
  process.ending = FindEnding(process, running);
  process.duration_ns = FindDuration(process);
}

void FillTotals(const Header& header, Recording* recording) {
  Totals& totals = recording->totals;
  totals.mapped_bytes = header.mapped_bytes;
  totals.brk_bytes = header.brk_bytes;
  totals.unknown_frees = header.unknown_frees;
  totals.live_bytes_before_gc = header.live_bytes_before_gc;
  totals.live_blocks_before_gc = header.live_blocks_before_gc;
  totals.rss_at_freeze = header.rss_at_freeze;
  totals.major_gcs = header.major_gcs;
  totals.file_bytes = header.file_bytes;
  recording->confirmation = header.confirmation;
  memcpy(recording->losses, header.losses, sizeof(recording->losses));
}

// Says what is wrong with the shards, once for all of them.
class ShardDamage {
 public:
  void Add(uint32_t index, const ShardCopy& copy, uint64_t live) {
    if (copy.unreadable) Count(index, &unreadable_, &first_unreadable_);
    if (copy.missing_slots != 0) Count(index, &cut_, &first_cut_);
    missing_slots_ += copy.missing_slots;
    if (copy.torn) Count(index, &torn_, &first_torn_);
    // The count of a shard at rest is right.
    const bool whole = !copy.torn && !copy.unreadable && copy.missing_slots == 0;
    if (whole && live != copy.shard.count) Count(index, &miscounted_, &first_miscounted_);
  }
  bool torn() const { return torn_ != 0; }

  void Report(bool running, Recording* recording) const {
    const auto say = [](std::vector<std::string>* list, uint32_t shards, uint32_t first, absl::string_view what) {
      if (shards == 0) return;
      const std::string which =
          shards == 1 ? absl::StrCat("shard ", first) : absl::StrCat(shards, " shards (", first, " is the first)");
      list->push_back(absl::StrCat("blocks of ", which, ": ", what));
    };
    say(&recording->damage, unreadable_, first_unreadable_, "left out, the shard's head is damaged");
    say(&recording->damage, cut_, first_cut_, absl::StrCat(missing_slots_, " slots are not in the file"));
    say(&recording->damage, miscounted_, first_miscounted_, "there are not as many as the shard says");
    if (running) {
      say(&recording->notes, torn_, first_torn_, "changed while they were read, a few may be missing");
    } else {
      say(&recording->damage, torn_, first_torn_,
          "the process ended in the middle of a change, one each may be missing or wrong");
    }
  }

 private:
  static void Count(uint32_t index, uint32_t* count, uint32_t* first) {
    if ((*count)++ == 0) *first = index;
  }
  uint32_t unreadable_ = 0, first_unreadable_ = 0;
  uint32_t cut_ = 0, first_cut_ = 0;
  uint32_t torn_ = 0, first_torn_ = 0;
  uint32_t miscounted_ = 0, first_miscounted_ = 0;
  uint64_t missing_slots_ = 0;
};

bool ReadBlocks(RawReader* reader, const Header& header, bool running, Recording* recording) {
  if (!reader->HasShards()) {
    const bool just_starting =
        header.shards_offset == 0 && header.state == static_cast<uint32_t>(ProcessState::kStarting);
    if (!just_starting) recording->damage.push_back("the blocks are not in the file: none of them is shown");
    return false;
  }
  ShardDamage damage;
  ShardCopy copy;
  for (uint32_t index = 0; index < kShardCount; ++index) {
    reader->ReadShard(index, &copy);
    const size_t before = recording->blocks.size();
    for (const Block& slot : copy.slots) {
      if (slot.address != 0) recording->blocks.push_back(slot);
    }
    damage.Add(index, copy, recording->blocks.size() - before);
    recording->totals.counted_blocks += copy.shard.count;
    recording->totals.counted_bytes += copy.shard.live_bytes;
  }
  damage.Report(running, recording);
  return damage.torn();
}

template <typename T>
void Take(TableCopy<T> copy, std::vector<T>* entries, Recording* recording) {
  *entries = std::move(copy.entries);
  if (!copy.problem.empty()) recording->damage.push_back(std::move(copy.problem));
}

template <typename T>
void ReadInto(RawReader* reader, TableId id, std::vector<T>* entries, Recording* recording) {
  Take(reader->ReadTable<T>(id), entries, recording);
}

// What refers comes before what it refers to, see raw_reader.h.
TornParts ReadParts(RawReader* reader, const Header& header, bool running, Recording* recording, RawTables* raw) {
  TornParts torn;
  torn.blocks = ReadBlocks(reader, header, running, recording);
  Take(reader->ReadRanges(&torn.ranges), &recording->ranges, recording);
  if (torn.ranges) {
    (running ? recording->notes : recording->damage)
        .push_back("the mappings were just changing: one may be missing or wrong");
  }
  TableCopy<Checkpoint> checkpoints;
  TableCopy<CheckpointEntry> checkpoint_entries;
  reader->ReadCheckpoints(&checkpoints, &checkpoint_entries);
  Take(std::move(checkpoints), &recording->checkpoints, recording);
  Take(std::move(checkpoint_entries), &recording->checkpoint_entries, recording);
  TableCopy<MemoryPicture> pictures;
  TableCopy<MemoryUse> picture_uses;
  TableCopy<MemoryArena> picture_arenas;
  reader->ReadPictures(&pictures, &picture_uses, &picture_arenas);
  Take(std::move(pictures), &raw->pictures, recording);
  Take(std::move(picture_uses), &raw->picture_uses, recording);
  Take(std::move(picture_arenas), &raw->picture_arenas, recording);
  ReadInto(reader, TableId::kOwnMappings, &recording->own_mappings, recording);
  ReadInto(reader, TableId::kTimeline, &recording->timeline, recording);
  ReadInto(reader, TableId::kSpaces, &raw->spaces, recording);
  ReadInto(reader, TableId::kFreedByGc, &recording->freed_by_gc, recording);
  ReadInto(reader, TableId::kGcAnswers, &recording->gc_answers, recording);
  ReadInto(reader, TableId::kOlderBuffers, &recording->older_buffers, recording);
  ReadInto(reader, TableId::kBufferLists, &recording->buffer_lists, recording);
  Take(reader->ReadIsolates(), &recording->isolates, recording);
  ReadInto(reader, TableId::kStacks, &recording->stacks, recording);
  ReadInto(reader, TableId::kThreads, &raw->threads, recording);
  ReadInto(reader, TableId::kStackNodes, &recording->stack_nodes, recording);
  ReadInto(reader, TableId::kFrames, &recording->frames, recording);
  ReadInto(reader, TableId::kJsFunctions, &raw->js_functions, recording);
  ReadInto(reader, TableId::kModules, &raw->modules, recording);
  ReadInto(reader, TableId::kStringBytes, &raw->strings, recording);
  return torn;
}

ModuleInfo ResolveModule(const Module& module, TextReader* texts) {
  ModuleInfo info;
  info.path = texts->Read(module.path);
  const uint32_t id_bytes = std::min<uint32_t>(module.build_id_bytes, sizeof(module.build_id));
  info.build_id.assign(reinterpret_cast<const char*>(module.build_id), id_bytes);
  info.bias = module.bias;
  info.start = module.start;
  info.end = std::max(module.start, module.end);
  info.loaded_ns = module.loaded_ns;
  info.unloaded_ns = module.unloaded_ns;
  info.is_executable = module.is_executable == 1;
  return info;
}

ThreadInfo ResolveThread(const Thread& thread, TextReader* texts) {
  ThreadInfo info;
  info.tid = thread.tid;
  info.role = static_cast<ThreadRole>(thread.role);
  info.name = texts->Keep(CleanText({thread.name, strnlen(thread.name, sizeof(thread.name))}, /*keep_lines=*/false));
  info.creation_stack = thread.creation_stack;
  info.worker_number = thread.worker_number;
  info.start_ns = thread.start_ns;
  info.end_ns = thread.end_ns;
  info.stack_start = thread.stack_start;
  info.stack_end = std::max(thread.stack_start, thread.stack_end);
  info.start_routine = thread.start_routine;
  return info;
}

void ResolveProcess(const Header& header, TextReader* texts, Recording* recording) {
  ProcessInfo& process = recording->process;
  process.executable = texts->Read(header.executable);
  process.working_directory = texts->Read(header.working_directory);
  process.node_version = texts->Read(header.node_version);
  process.v8_version = texts->Read(header.v8_version);
  process.command = texts->ReadList(header.command);
  for (uint32_t i = 0; i < static_cast<uint32_t>(CapabilityId::kCount); ++i) {
    const Capability& capability = header.capabilities[i];
    recording->capabilities[i].state =
        KnownOr(capability.state, CapabilityState::kAbsent, CapabilityState::kUnknown, "capability state", recording);
    recording->capabilities[i].why = texts->Read(capability.why);
  }
}

void ResolveTexts(const Header& header, const RawTables& raw, Recording* recording) {
  TextReader texts(raw.strings, recording);
  ResolveProcess(header, &texts, recording);
  recording->modules.reserve(raw.modules.size());
  for (const Module& module : raw.modules) recording->modules.push_back(ResolveModule(module, &texts));
  recording->js_functions.reserve(raw.js_functions.size());
  for (const JsFunction& function : raw.js_functions) {
    recording->js_functions.push_back({texts.Read(function.name), texts.Read(function.file), texts.Read(function.where),
                                       function.line, function.column, function.flags});
  }
  recording->threads.reserve(raw.threads.size());
  for (const Thread& thread : raw.threads) recording->threads.push_back(ResolveThread(thread, &texts));
  recording->spaces.reserve(raw.spaces.size());
  for (const HeapSpace& space : raw.spaces) {
    recording->spaces.push_back(
        {space.isolate, texts.Read(space.name), space.size, space.used, space.available, space.physical});
  }
  if (texts.unreadable() != 0) {
    recording->damage.push_back(absl::StrCat(texts.unreadable(), " texts are not in the string table: shown empty"));
  }
}

}  // namespace

absl::StatusOr<Recording> ReadRecordingFrom(const ByteSource& source) {
  absl::StatusOr<Header> header = ReadHeader(source);
  if (!header.ok()) return header.status();
  const bool may_run = (header->flags & kIsSnapshot) == 0;
  const bool running = may_run && IsProcessRunning(header->pid, header->process_start_ticks);

  RawReader reader(source, *header, running);
  reader.RememberIsolates();
  header = ReadHeader(source);
  if (!header.ok()) return header.status();
  Recording recording;
  FillProcess(*header, running, &recording);
  FillTotals(*header, &recording);
  const uint64_t size = source.Size();
  if (header->file_bytes > size) {
    recording.damage.push_back(
        absl::StrCat("the file is cut short: ", size, " of ", header->file_bytes, " bytes are there"));
  }
  RawTables raw;
  const TornParts torn = ReadParts(&reader, *header, running, &recording, &raw);
  ResolveTexts(*header, raw, &recording);
  ValidateFrames(&recording);
  ValidateStacks(&recording);
  ValidateBlocks(&recording, torn.blocks);
  ValidateRanges(&recording, torn.ranges);
  ValidateThreads(&recording);
  ValidateTimeline(&recording);
  ValidateCheckpoints(&recording);
  TakePictures(raw.pictures, raw.picture_uses, raw.picture_arenas, &recording);
  ValidateCollections(&recording);
  ValidateOlderBuffers(&recording);
  SumTotals(&recording);
  return recording;
}

absl::StatusOr<Recording> ReadRecording(const std::string& path) {
  absl::StatusOr<FileSource> source = FileSource::Open(path);
  absl::StatusOr<Recording> recording =
      source.ok() ? ReadRecordingFrom(*source) : absl::StatusOr<Recording>(source.status());
  if (recording.ok()) return recording;
  return absl::Status(recording.status().code(),
                      absl::StrCat("cannot read recording ", path, ": ", recording.status().message()));
}

absl::StatusOr<Recording> ParseRecording(absl::Span<const char> bytes) {
  return ReadRecordingFrom(MemorySource(bytes));
}

bool LooksLikeRecording(const std::string& path) {
  absl::StatusOr<FileSource> source = FileSource::Open(path);
  uint64_t magic = 0;
  return source.ok() && source->ReadValue(0, &magic) && magic == kMagic;
}

}  // namespace nodeleak::recording
