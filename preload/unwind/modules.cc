#include "preload/unwind/modules.h"

#include <elf.h>
#include <string.h>
#include <sys/auxv.h>

#include "preload/base/proc_text.h"
#include "preload/base/safe_read.h"
#include "preload/base/system.h"

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));  // the linker's: our own ELF header

namespace nodeleak::preload {
namespace {

constexpr uint32_t kMaxModules = 2048;
constexpr uint32_t kMaxProgramHeaders = 32;

ModuleInfo g_modules[kMaxModules];
uint32_t g_count;  // published with release order; an entry below it never moves
SpinLock g_lock;
ModuleObservers g_observers;
const ModuleInfo* g_shim;

struct MapsLine {
  uint64_t start, end, offset;
  bool readable, executable;
  const char* path;  // "" : anonymous
};

// "start-end rwxp offset dev inode   path"; ends the line with NUL in place. nullptr at the end of the text.
char* ParseMapsLine(char* text, MapsLine* line) {
  char* newline = strchr(text, '\n');
  if (newline == nullptr) return nullptr;
  *newline = '\0';
  const char* p = text;
  line->start = ParseHex(&p);
  ++p;
  line->end = ParseHex(&p);
  line->readable = p[1] == 'r';
  line->executable = p[3] == 'x';
  p += 6;
  line->offset = ParseHex(&p);
  for (int fields = 0; fields < 2; ++fields) {  // device, inode
    while (*p == ' ') ++p;
    while (*p != ' ' && *p != '\0') ++p;
  }
  while (*p == ' ') ++p;
  line->path = p;
  return newline + 1;
}

bool ReadHeaders(uint64_t base, Elf64_Ehdr* header, Elf64_Phdr* segments) {
  return SafeRead(base, header, sizeof *header) && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
         header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_phnum <= kMaxProgramHeaders &&
         header->e_phentsize == sizeof(Elf64_Phdr) &&
         SafeRead(base + header->e_phoff, segments, header->e_phnum * sizeof(Elf64_Phdr));
}

void ReadBuildId(uint64_t notes, uint64_t bytes, ModuleInfo* module) {
  uint8_t buffer[1024];
  if (bytes > sizeof buffer) bytes = sizeof buffer;
  if (!SafeRead(notes, buffer, bytes)) return;
  for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= bytes;) {
    Elf64_Nhdr note;
    memcpy(&note, buffer + at, sizeof note);
    const uint64_t name = at + sizeof note;
    const uint64_t data = name + ((note.n_namesz + 3u) & ~3ull);
    const uint64_t next = data + ((note.n_descsz + 3u) & ~3ull);
    if (next > bytes) return;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(buffer + name, "GNU", 4) == 0) {
      module->build_id_bytes = note.n_descsz <= sizeof module->build_id ? note.n_descsz : sizeof module->build_id;
      memcpy(module->build_id, buffer + data, module->build_id_bytes);
      return;
    }
    at = next;
  }
}

// .eh_frame_hdr, as the Linux Standard Base describes it: version, three pointer encodings, then the pointers.
struct EhFrameHeader {
  uint8_t version;
  uint8_t eh_frame_encoding;  // 0x1b: pc-relative signed 4 bytes
  uint8_t count_encoding;     // 0x03: unsigned 4 bytes
  uint8_t table_encoding;     // 0x3b: relative to the header, signed 4 bytes
  int32_t eh_frame;
  uint32_t count;
};

void FindUnwindTable(uint64_t address, uint64_t bytes, ModuleInfo* module) {
  EhFrameHeader header;
  module->eh_frame_hdr = address;
  if (bytes < sizeof header || !SafeRead(address, &header, sizeof header)) return;
  constexpr uint64_t kEntryBytes = 8;
  if (header.version != 1 || header.count_encoding != 0x03 || header.table_encoding != 0x3b ||
      header.count > (bytes - sizeof header) / kEntryBytes) {
    return;
  }
  module->unwind_table = address + sizeof header;
  module->unwind_table_bytes = header.count * kEntryBytes;
}

bool DescribeModule(uint64_t base, ModuleInfo* module) {
  Elf64_Ehdr header;
  Elf64_Phdr segments[kMaxProgramHeaders];
  memset(module, 0, sizeof *module);
  if (!ReadHeaders(base, &header, segments)) return false;
  bool first = true;
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    const Elf64_Phdr& segment = segments[i];
    if (segment.p_type != PT_LOAD) continue;
    if (first) {
      module->bias = base - (segment.p_vaddr & ~0xfffull);
      module->start = base;
      first = false;
    }
    const uint64_t start = module->bias + segment.p_vaddr;
    const uint64_t end = (start + segment.p_memsz + 0xfff) & ~0xfffull;
    if (end > module->end) module->end = end;
    if ((segment.p_flags & PF_X) == 0) continue;
    if (module->text_start == 0) module->text_start = start & ~0xfffull;
    module->text_end = end;
  }
  if (first || module->text_end == 0) return false;
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    const Elf64_Phdr& segment = segments[i];
    if (segment.p_type == PT_GNU_EH_FRAME) {
      FindUnwindTable(module->bias + segment.p_vaddr, segment.p_memsz, module);
    } else if (segment.p_type == PT_NOTE && module->build_id_bytes == 0) {
      ReadBuildId(module->bias + segment.p_vaddr, segment.p_memsz, module);
    }
  }
  return true;
}

// A file may be renamed while it is mapped; of one that was unmapped meanwhile, more is asked.
bool SameModule(const ModuleInfo& known, const ModuleInfo& seen) {
  return known.start == seen.start && known.text_end == seen.text_end && known.build_id_bytes == seen.build_id_bytes &&
         memcmp(known.build_id, seen.build_id, sizeof seen.build_id) == 0 &&
         (known.loaded || (seen.build_id_bytes > 0 && known.path_hash == seen.path_hash));
}

uint32_t HashOfPath(const char* path) {
  uint32_t hash = 0x811c9dc5u;  // FNV-1a
  for (; *path != '\0'; ++path) hash = (hash ^ static_cast<uint8_t>(*path)) * 0x01000193u;
  return hash;
}

// A program may load and unload the same library without end: that takes one entry.
void Revive(ModuleInfo* module) {
  if (module->loaded) return;
  if (g_observers.back != nullptr) g_observers.back(module->recording_index);
  __atomic_store_n(&module->loaded, true, __ATOMIC_RELEASE);
}

void AddModule(ModuleInfo seen, const char* path) {
  if (g_count == kMaxModules) return;
  const uint64_t executable_entry = getauxval(AT_ENTRY);
  seen.is_executable = executable_entry >= seen.text_start && executable_entry < seen.text_end;
  seen.loaded = true;
  seen.recording_index = g_observers.added != nullptr ? g_observers.added(seen, path) : 0;
  g_modules[g_count] = seen;
  // Linked into a unit test we are the program: then no frame is ours to hide.
  if (seen.start == reinterpret_cast<uint64_t>(__ehdr_start) && !seen.is_executable) g_shim = &g_modules[g_count];
  __atomic_store_n(&g_count, g_count + 1, __ATOMIC_RELEASE);
}

// The lines of one file: the first has its ELF header, a later one must be its executable segment where the header says
// it is. A data file or a second copy of some pages has no such line.
struct Candidate {
  bool open;
  bool confirmed;
  char path[1024];
  ModuleInfo module;
};

void CloseCandidate(Candidate* candidate, bool* still_there) {
  if (!candidate->open) return;
  candidate->open = false;
  const bool always =
      candidate->module.text_start <= getauxval(AT_ENTRY) && getauxval(AT_ENTRY) < candidate->module.text_end;
  if (!candidate->confirmed && !always) return;  // --use-largepages moves node's text to anonymous memory: still node
  candidate->module.path_hash = HashOfPath(candidate->path);
  for (uint32_t i = 0; i < g_count; ++i) {
    if (!SameModule(g_modules[i], candidate->module)) continue;
    Revive(&g_modules[i]);
    still_there[i] = true;
    return;
  }
  if (g_count < kMaxModules) still_there[g_count] = true;
  AddModule(candidate->module, candidate->path);
}

void ReadMaps(char* text, bool* still_there) {
  static Candidate candidate;  // under g_lock
  candidate.open = false;
  MapsLine line;
  for (char* next = text; (next = ParseMapsLine(next, &line)) != nullptr;) {
    if (candidate.open && line.start < candidate.module.end) {
      if (line.executable && line.start < candidate.module.text_end && candidate.module.text_start < line.end &&
          strcmp(line.path, candidate.path) == 0) {
        candidate.confirmed = true;
      }
      continue;
    }
    CloseCandidate(&candidate, still_there);
    const bool vdso = strcmp(line.path, "[vdso]") == 0;
    if ((line.path[0] != '/' && !vdso) || line.offset != 0 || !line.readable ||
        strlen(line.path) >= sizeof candidate.path)
      continue;
    if (!DescribeModule(line.start, &candidate.module)) continue;
    candidate.open = true;
    candidate.confirmed = line.executable;
    strcpy(candidate.path, line.path);
  }
  CloseCandidate(&candidate, still_there);
}

}  // namespace

void SetModuleObservers(const ModuleObservers& observers) { g_observers = observers; }

bool RefreshModules() {
  if (!g_lock.TryLock()) return false;
  // Under the lock: an older text than another thread's would take what that one found for gone.
  MappedText maps = ReadWholeFile("/proc/thread-self/maps");
  bool any_gone = false;
  if (maps.data != nullptr) {
    static bool still_there[kMaxModules];
    memset(still_there, 0, sizeof still_there);
    ReadMaps(maps.data, still_there);
    for (uint32_t i = 0; i < g_count; ++i) {
      if (still_there[i] || !g_modules[i].loaded) continue;
      __atomic_store_n(&g_modules[i].loaded, false, __ATOMIC_RELEASE);
      if (g_observers.gone != nullptr) g_observers.gone(g_modules[i].recording_index);
      any_gone = true;
    }
  }
  g_lock.Unlock();
  UnmapMemory(maps.data, maps.mapped);
  return any_gone;
}

void ForgetModules() {
  if (!g_lock.TryLock()) return;
  __atomic_store_n(&g_count, 0u, __ATOMIC_RELEASE);
  g_shim = nullptr;
  g_lock.Unlock();
}

const ModuleInfo* FindModule(uint64_t pc) {
  const uint32_t count = __atomic_load_n(&g_count, __ATOMIC_ACQUIRE);
  for (uint32_t i = 0; i < count; ++i) {
    const ModuleInfo& module = g_modules[i];
    if (pc >= module.text_start && pc < module.text_end && __atomic_load_n(&module.loaded, __ATOMIC_ACQUIRE))
      return &module;
  }
  return nullptr;
}

bool InShim(uint64_t pc) { return g_shim != nullptr && pc >= g_shim->text_start && pc < g_shim->text_end; }

}  // namespace nodeleak::preload
