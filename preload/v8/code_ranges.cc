#include "preload/v8/code_ranges.h"

#include <dlfcn.h>
#include <string.h>

#include "preload/base/safe_read.h"
#include "preload/base/system.h"
#include "preload/v8/module.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint32_t kMaxRanges = 1024;  // up to V8 11 each worker has two of its own

// Readers take a version before and after; a writer fills the other set, then moves on.
struct RangeSet {
  ExecutableRange ranges[kMaxRanges];
  uint32_t count;
};
RangeSet g_sets[2];
uint32_t g_version;    // g_sets[g_version & 1] is valid
uint32_t g_changes;    // bumped when executable memory changed
uint32_t g_looked_at;  // g_changes when the maps were read last
uint64_t g_looked_ns;
SpinLock g_refresh_lock;

uint64_t g_builtins_start, g_builtins_end;  // in .text

// The blob is known to V8 once the first isolate is made; nothing runs in it before.
bool FindEmbeddedBuiltins() {
  using GetRange = void (*)(void*, const void**, size_t*);
  static GetRange get_range =
      reinterpret_cast<GetRange>(dlsym(RTLD_DEFAULT, "_ZN2v87Isolate20GetEmbeddedCodeRangeEPPKvPm"));
  if (get_range == nullptr) return false;
  const void* start = nullptr;
  size_t bytes = 0;
  get_range(nullptr, &start, &bytes);  // a static property of the process: `this` is not used
  if (start == nullptr || bytes == 0) return false;
  uint64_t address = reinterpret_cast<uint64_t>(start);
  if (address < g_module.text_start || address + bytes > g_module.text_end) return false;
  __atomic_store_n(&g_builtins_start, address, __ATOMIC_RELAXED);
  __atomic_store_n(&g_builtins_end, address + bytes, __ATOMIC_RELEASE);
  return true;
}

bool InEmbeddedBuiltins(uint64_t pc) {
  uint64_t end = __atomic_load_n(&g_builtins_end, __ATOMIC_ACQUIRE);
  if (end == 0) {
    if (!FindEmbeddedBuiltins()) return false;
    end = g_builtins_end;
  }
  return pc >= g_builtins_start && pc < end;
}

bool FindKnown(uint64_t pc, CodeKind* kind) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    uint32_t version = __atomic_load_n(&g_version, __ATOMIC_ACQUIRE);
    const RangeSet& set = g_sets[version & 1];
    bool found = false;
    uint32_t count = set.count < kMaxRanges ? set.count : kMaxRanges;
    for (uint32_t i = 0; i < count; ++i) {
      if (pc - set.ranges[i].start >= set.ranges[i].end - set.ranges[i].start) continue;
      *kind = set.ranges[i].kind;
      found = true;
      break;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    // One version on, the next writer may already be filling the set that was read.
    if (__atomic_load_n(&g_version, __ATOMIC_RELAXED) == version) return found;
  }
  return false;
}

// Unknown pcs come in bursts (a library that nobody told us of): look at most every 20 ms unless something changed.
bool WorthLooking(bool only_v8) {
  constexpr uint64_t kPauseNs = 20'000'000, kPauseOfV8Ns = 1'000'000'000;
  if (__atomic_load_n(&g_changes, __ATOMIC_RELAXED) != __atomic_load_n(&g_looked_at, __ATOMIC_RELAXED)) return true;
  const uint64_t since_ns = CoarseMonotonicNanoseconds() - __atomic_load_n(&g_looked_ns, __ATOMIC_RELAXED);
  return since_ns > (only_v8 ? kPauseOfV8Ns : kPauseNs);
}

void Publish(const RangeSet& found, uint32_t changes) {
  if (!g_refresh_lock.TryLock()) return;
  if (static_cast<int32_t>(changes - g_looked_at) >= 0) {
    const uint32_t version = g_version;
    RangeSet& next = g_sets[(version + 1) & 1];
    memcpy(next.ranges, found.ranges, found.count * sizeof found.ranges[0]);
    next.count = found.count;
    __atomic_store_n(&g_version, version + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&g_looked_at, changes, __ATOMIC_RELAXED);
    __atomic_store_n(&g_looked_ns, CoarseMonotonicNanoseconds(), __ATOMIC_RELAXED);
  }
  g_refresh_lock.Unlock();
}

// The maps are read without the lock: nobody waits for a thread that lost the processor over them. What is older than
// what is known by now is not taken.
void Refresh() {
  const uint32_t changes = __atomic_load_n(&g_changes, __ATOMIC_ACQUIRE);
  MappedText maps = ReadWholeFile("/proc/thread-self/maps");
  auto* found = static_cast<RangeSet*>(MapMemory(sizeof(RangeSet)));
  if (maps.data != nullptr && found != nullptr) {
    found->count = ParseExecutableRanges(maps.data, g_module.text_start, found->ranges, kMaxRanges);
    Publish(*found, changes);
  }
  UnmapMemory(found, sizeof(RangeSet));
  UnmapMemory(maps.data, maps.mapped);
}

// One line of the maps: "start-end perms offset dev inode path".
struct MapsLine {
  uint64_t start, end;
  bool executable, writable, anonymous;
  uint64_t device, inode;  // stat() may report another device than maps does (overlayfs): compare lines with lines
};

uint64_t TakeNumber(const char** text, unsigned base) {
  uint64_t value = 0;
  for (;; ++*text) {
    unsigned digit = **text >= '0' && **text <= '9'   ? static_cast<unsigned>(**text - '0')
                     : **text >= 'a' && **text <= 'f' ? static_cast<unsigned>(**text - 'a' + 10)
                                                      : 99u;
    if (digit >= base) return value;
    value = value * base + digit;
  }
}

bool ParseLine(const char* text, MapsLine* line) {
  line->start = TakeNumber(&text, 16);
  if (*text++ != '-') return false;
  line->end = TakeNumber(&text, 16);
  if (*text != ' ' || strnlen(text, 6) < 6) return false;
  line->executable = text[3] == 'x';
  line->writable = text[2] == 'w';
  text += 6;
  TakeNumber(&text, 16);  // offset
  if (*text++ != ' ') return false;
  uint64_t major = TakeNumber(&text, 16);
  if (*text++ != ':') return false;
  uint64_t minor = TakeNumber(&text, 16);
  if (*text++ != ' ') return false;
  line->device = major << 32 | minor;
  line->inode = TakeNumber(&text, 10);
  while (*text == ' ') ++text;
  // "[anon:v8]" is anonymous memory with a name; [vdso], [vsyscall], [stack], [heap] are no code of V8.
  bool named = strncmp(text, "[anon:", 6) == 0;
  line->anonymous = line->inode == 0 && (*text == '\n' || *text == '\0' || named);
  return true;
}

// Parses the line at *text and moves on to the next.
bool NextLine(const char** text, MapsLine* line) {
  bool parsed = ParseLine(*text, line);
  const char* newline = strchr(*text, '\n');
  *text = newline != nullptr ? newline + 1 : *text + strlen(*text);
  return parsed;
}

MapsLine FindLine(const char* maps, uint64_t address) {
  MapsLine line;
  while (*maps != '\0') {
    if (NextLine(&maps, &line) && line.start <= address && address < line.end) return line;
  }
  return {};
}

// V8 10 copies the builtins of a worker into anonymous memory of its code range instead of mapping the file again
// (src/heap/code-range.cc, CodeRange::RemapEmbeddedBuiltins at 10.2): a mapping of its own that begins like the blob.
bool IsCopyOfBuiltins(const MapsLine& line) {
  const uint64_t bytes = g_builtins_end - g_builtins_start;
  if (!line.executable || line.writable || bytes == 0 || line.end - line.start < bytes) return false;
  constexpr uint64_t kCompared = 512;
  uint8_t head[kCompared];
  return SafeRead(line.start, head, sizeof head) &&
         memcmp(head, reinterpret_cast<const void*>(g_builtins_start), sizeof head) == 0;
}

}  // namespace

// Anonymous executable memory counts as JIT memory together with the anonymous memory between its pieces: V8 reserves
// its code range in one piece and turns pages of it executable as it needs them. Not what lies before the first and
// behind the last of them: it may be somebody else's, and an addon may be loaded there later. A page that turns
// executable there is a change to look at.
uint32_t ParseExecutableRanges(const char* maps, uint64_t own_text_start, ExecutableRange* ranges, uint32_t capacity) {
  const MapsLine own = FindLine(maps, own_text_start);
  uint32_t count = 0;
  uint64_t run_end = 0;                   // of contiguous anonymous mappings
  uint64_t code_start = 0, code_end = 0;  // the executable ones of the run, and what is between
  auto end_run = [&] {
    if (code_end != 0 && count < capacity) ranges[count++] = {code_start, code_end, CodeKind::kJit};
    code_end = 0;
  };
  for (const char* text = maps; *text != '\0';) {
    MapsLine line;
    if (!NextLine(&text, &line)) continue;
    if (line.anonymous) {
      if (line.start != run_end) end_run();
      run_end = line.end;
      if (line.executable && code_end == 0) code_start = line.start;
      if (line.executable) code_end = line.end;
      // In front of the run that it is part of: the first range that holds a pc counts.
      if (count < capacity && IsCopyOfBuiltins(line)) {
        ranges[count++] = {line.start, line.start + (g_builtins_end - g_builtins_start), CodeKind::kBuiltins};
      }
      continue;
    }
    end_run();
    if (!line.executable || count >= capacity) continue;
    bool copy = line.inode != 0 && line.inode == own.inode && line.device == own.device && line.start != own.start;
    ranges[count++] = {line.start, line.end, copy ? CodeKind::kBuiltins : CodeKind::kNotV8};
  }
  end_run();
  return count;
}

CodeKind FindCodeKind(uint64_t pc, bool in_elf_text, bool only_v8) {
  --pc;  // a return address after a call that does not return lies one past the end
  if (pc - g_module.text_start < g_module.text_end - g_module.text_start)
    return InEmbeddedBuiltins(pc) ? CodeKind::kBuiltins : CodeKind::kNotV8;
  if (in_elf_text) return CodeKind::kNotV8;
  CodeKind kind = CodeKind::kNotV8;
  if (FindKnown(pc, &kind)) return kind;
  if (!WorthLooking(only_v8)) return CodeKind::kNotV8;
  Refresh();
  return FindKnown(pc, &kind) ? kind : CodeKind::kNotV8;
}

void CodeMemoryUnseen() { __atomic_add_fetch(&g_changes, 1u, __ATOMIC_RELEASE); }

bool CodeMemoryChanged(uint64_t start, uint64_t bytes, bool unmapped) {
  if (!unmapped) {
    // Pages of a known reservation turn executable all the time: nothing to learn.
    CodeKind kind;
    if (FindKnown(start, &kind) && FindKnown(start + bytes - 1, &kind) && kind == CodeKind::kJit) return false;
    __atomic_add_fetch(&g_changes, 1u, __ATOMIC_RELEASE);
    return false;
  }
  // A whole range is gone (a worker ended): what comes there next is something else.
  const RangeSet& set = g_sets[__atomic_load_n(&g_version, __ATOMIC_ACQUIRE) & 1];
  for (uint32_t i = 0; i < set.count && i < kMaxRanges; ++i) {
    if (start > set.ranges[i].start || start + bytes < set.ranges[i].end) continue;
    __atomic_add_fetch(&g_changes, 1u, __ATOMIC_RELEASE);
    Refresh();
    return true;
  }
  return false;
}

}  // namespace nodeleak::preload::v8
