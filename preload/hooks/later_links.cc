#include "preload/hooks/later_links.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "preload/base/proc_text.h"
#include "preload/base/system.h"
#include "recording/attach_control.h"

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));  // the linker's: our own ELF header
extern "C" nodeleak::recording::AttachControl nodeleak_attach_control;

namespace nodeleak::preload {
namespace {

constexpr uint64_t kPageBytes = 4096;
// A library is in the list before its links are filled in: it is looked at more than once.
constexpr int kLooks = 20;

int g_looks;  // that are still to be made
uint64_t g_adds, g_subs;

// A loaded library as its headers describe it. All of it stays where it is while the dynamic linker's lock is held.
struct Library {
  uint64_t bias = 0, start = UINT64_MAX, end = 0;
  uint64_t fixed_start = 0, fixed_end = 0;  // made read-only once its links are filled in (RELRO), whole pages
  const char* strings = nullptr;
  const Elf64_Sym* symbols = nullptr;
  struct Table {
    const Elf64_Rela* entries = nullptr;
    uint64_t bytes = 0;
  } tables[2];

  bool Contains(uint64_t address) const { return address >= start && address < end; }
  bool IsFixed(uint64_t address) const { return address >= fixed_start && address < fixed_end; }
};

uint64_t PageOf(uint64_t address) { return address & ~(kPageBytes - 1); }

void ReadDynamic(const Elf64_Dyn* entry, Library* library) {
  for (; entry->d_tag != DT_NULL; ++entry) {
    // The dynamic linker makes addresses of most of these.
    const uint64_t address = entry->d_un.d_ptr < library->bias ? entry->d_un.d_ptr + library->bias : entry->d_un.d_ptr;
    if (entry->d_tag == DT_STRTAB) library->strings = reinterpret_cast<const char*>(address);
    if (entry->d_tag == DT_SYMTAB) library->symbols = reinterpret_cast<const Elf64_Sym*>(address);
    if (entry->d_tag == DT_RELA) library->tables[0].entries = reinterpret_cast<const Elf64_Rela*>(address);
    if (entry->d_tag == DT_RELASZ) library->tables[0].bytes = entry->d_un.d_val;
    if (entry->d_tag == DT_JMPREL) library->tables[1].entries = reinterpret_cast<const Elf64_Rela*>(address);
    if (entry->d_tag == DT_PLTRELSZ) library->tables[1].bytes = entry->d_un.d_val;
  }
}

bool ReadLibrary(const dl_phdr_info& info, Library* library) {
  library->bias = info.dlpi_addr;
  const Elf64_Dyn* dynamic = nullptr;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const Elf64_Phdr& segment = info.dlpi_phdr[i];
    const uint64_t start = info.dlpi_addr + segment.p_vaddr, end = start + segment.p_memsz;
    if (segment.p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const Elf64_Dyn*>(start);
    if (segment.p_type == PT_GNU_RELRO) {
      library->fixed_start = PageOf(start);
      library->fixed_end = PageOf(end);
    }
    if (segment.p_type != PT_LOAD) continue;
    if (start < library->start) library->start = start;
    if (end > library->end) library->end = end;
  }
  if (dynamic == nullptr) return false;
  ReadDynamic(dynamic, library);
  const auto within = [library](const void* address) { return library->Contains(reinterpret_cast<uint64_t>(address)); };
  for (Library::Table& table : library->tables) {
    const bool whole = table.bytes != 0 && within(table.entries) &&
                       table.bytes <= library->end - reinterpret_cast<uint64_t>(table.entries);
    if (!whole) table.bytes = 0;
  }
  return within(library->strings) && within(library->symbols);
}

// A slot that is bound at its first call leads to its PLT entry, behind the jump: there the number of the relocation is
// pushed.
bool IsLazyBinding(const Library& library, uint64_t target) {
  constexpr uint8_t kEndBranch[] = {0xf3, 0x0f, 0x1e, 0xfa}, kPush = 0x68;
  if (!library.Contains(target) || !library.Contains(target + sizeof kEndBranch)) return false;
  const auto* code = reinterpret_cast<const uint8_t*>(target);
  return code[0] == kPush || (memcmp(code, kEndBranch, sizeof kEndBranch) == 0 && code[sizeof kEndBranch] == kPush);
}

enum class Access : uint8_t { kUnknown, kReadOnly, kWritable };

Access AccessOf(uint64_t address) {
  const MappedText maps = ReadWholeFile("/proc/thread-self/maps");
  Access access = Access::kUnknown;
  for (const char* line = maps.data; line != nullptr && *line != '\0';) {
    const char* p = line;
    const uint64_t start = ParseHex(&p);
    ++p;
    const uint64_t end = ParseHex(&p);
    if (address >= start && address < end) {
      access = p[2] == 'w' ? Access::kWritable : Access::kReadOnly;
      break;
    }
    line = strchr(p, '\n');
    if (line != nullptr) ++line;
  }
  UnmapMemory(maps.data, maps.mapped);
  return access;
}

void Store(uint64_t slot, uint64_t value) {
  __atomic_store_n(reinterpret_cast<uint64_t*>(slot), value, __ATOMIC_RELEASE);
}

// False: later. While such a page can be written to, the dynamic linker is at work in it, and will take that away.
bool StoreInFixedPage(uint64_t slot, uint64_t value) {
  if (AccessOf(slot) != Access::kReadOnly) return false;
  const long page = static_cast<long>(PageOf(slot));
  if (RawSyscall(SYS_mprotect, page, kPageBytes, PROT_READ | PROT_WRITE) != 0) return false;
  Store(slot, value);
  RawSyscall(SYS_mprotect, page, kPageBytes, PROT_READ);
  return true;
}

const recording::AttachHook* HookOf(const char* symbol) {
  const recording::AttachControl& control = nodeleak_attach_control;
  for (uint32_t i = 0; i < control.hook_count; ++i) {
    const recording::AttachHook& row = control.hooks[i];
    if (row.patched_at != 0 && row.saved_bytes == 0 && row.hook != 0 && strcmp(row.symbol, symbol) == 0) return &row;
  }
  return nullptr;
}

void HookLinks(const Library& library) {
  for (const Library::Table& table : library.tables)
    for (uint64_t i = 0; i < table.bytes / sizeof(Elf64_Rela); ++i) {
      const Elf64_Rela& entry = table.entries[i];
      const auto type = static_cast<uint32_t>(ELF64_R_TYPE(entry.r_info));
      if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) || entry.r_addend != 0) continue;
      const uint64_t slot = library.bias + entry.r_offset;
      if (!library.Contains(slot) || slot % sizeof(uint64_t) != 0) continue;
      const uint64_t target = __atomic_load_n(reinterpret_cast<const uint64_t*>(slot), __ATOMIC_ACQUIRE);
      const char* symbol = library.strings + library.symbols[ELF64_R_SYM(entry.r_info)].st_name;
      const recording::AttachHook* hook = HookOf(symbol);
      if (hook == nullptr) continue;
      const bool leads_there =
          target == hook->patched_at || (!library.Contains(hook->patched_at) && IsLazyBinding(library, target));
      if (!leads_there) continue;
      if (!library.IsFixed(slot)) {
        Store(slot, hook->hook);
      } else if (!StoreInFixedPage(slot, hook->hook)) {
        g_looks = kLooks;
      }
    }
}

int SeeLibrary(dl_phdr_info* info, size_t, void* first) {
  if (*static_cast<bool*>(first)) {
    *static_cast<bool*>(first) = false;
    if (info->dlpi_adds != g_adds || info->dlpi_subs != g_subs) g_looks = kLooks;
    g_adds = info->dlpi_adds;
    g_subs = info->dlpi_subs;
    if (g_looks == 0) return 1;
    --g_looks;
  }
  Library library;
  if (info->dlpi_addr != reinterpret_cast<uint64_t>(__ehdr_start) && ReadLibrary(*info, &library)) HookLinks(library);
  return 0;
}

}  // namespace

void HookLaterLinks() {
  if (__atomic_load_n(&nodeleak_attach_control.watch_links, __ATOMIC_ACQUIRE) == 0) return;
  bool first = true;
  dl_iterate_phdr(SeeLibrary, &first);
}

void ForgetLinks() {
  __atomic_store_n(&nodeleak_attach_control.watch_links, 0u, __ATOMIC_RELEASE);
  g_looks = 0;
  g_adds = g_subs = 0;
}

}  // namespace nodeleak::preload
