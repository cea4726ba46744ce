#include "preload/v8/module.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "preload/base/safe_read.h"
#include "preload/base/system.h"

namespace nodeleak::preload::v8 {

V8Module g_module;

namespace {

// The module's file, mapped for a look at .symtab.
struct SymbolFile {
  const char* data;
  uint64_t bytes;
  const Elf64_Sym* symbols;
  uint64_t symbol_count;
  const char* names;
  uint64_t name_bytes;
  bool tried;
};
SymbolFile g_file;

bool Inside(uint64_t offset, uint64_t bytes) { return offset <= g_file.bytes && g_file.bytes - offset >= bytes; }

bool ParseSymbolTable() {
  if (!Inside(0, sizeof(Elf64_Ehdr))) return false;
  auto* header = reinterpret_cast<const Elf64_Ehdr*>(g_file.data);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      !Inside(header->e_shoff, static_cast<uint64_t>(header->e_shnum) * sizeof(Elf64_Shdr)))
    return false;
  auto* sections = reinterpret_cast<const Elf64_Shdr*>(g_file.data + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    const Elf64_Shdr& section = sections[i];
    if (section.sh_type != SHT_SYMTAB || section.sh_link >= header->e_shnum) continue;
    const Elf64_Shdr& strings = sections[section.sh_link];
    if (!Inside(section.sh_offset, section.sh_size) || !Inside(strings.sh_offset, strings.sh_size)) return false;
    g_file.symbols = reinterpret_cast<const Elf64_Sym*>(g_file.data + section.sh_offset);
    g_file.symbol_count = section.sh_size / sizeof(Elf64_Sym);
    g_file.names = g_file.data + strings.sh_offset;
    g_file.name_bytes = strings.sh_size;
    return true;
  }
  return false;
}

bool MapSymbolFile() {
  if (g_file.tried) return g_file.symbols != nullptr;
  g_file.tried = true;
  long fd = RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(g_module.path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  struct stat status;
  long mapped = -1;
  if (RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) == 0 && status.st_size > 0)
    mapped = RawSyscall(SYS_mmap, 0, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  RawSyscall(SYS_close, fd);
  if (mapped < 0 && mapped > -4096) return false;
  g_file.data = reinterpret_cast<const char*>(mapped);
  g_file.bytes = static_cast<uint64_t>(status.st_size);
  return ParseSymbolTable();
}

int SeeModule(dl_phdr_info* info, size_t, void* context) {
  uint64_t inside = *static_cast<uint64_t*>(context);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const Elf64_Phdr& segment = info->dlpi_phdr[i];
    uint64_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    if (inside < start || inside - start >= segment.p_memsz) continue;
    g_module.text_start = start;
    g_module.text_end = start + segment.p_memsz;
    g_module.bias = info->dlpi_addr;
    const char* name = info->dlpi_name[0] != '\0' ? info->dlpi_name : "/proc/self/exe";
    if (strlen(name) < sizeof g_module.path) strcpy(g_module.path, name);
    return 1;
  }
  return 0;
}

}  // namespace

bool FindV8Module() {
  // Exported by every node; also by a libnode.so that the executable links.
  void* address = dlsym(RTLD_DEFAULT, "_ZN2v87Isolate13TryGetCurrentEv");
  if (address == nullptr) address = dlsym(RTLD_DEFAULT, "_ZN2v87Isolate10GetCurrentEv");
  if (address == nullptr) return false;
  uint64_t inside = reinterpret_cast<uint64_t>(address);
  return dl_iterate_phdr(SeeModule, &inside) != 0;
}

uint64_t FindModuleSymbol(const char* symbol) {
  if (void* exported = dlsym(RTLD_DEFAULT, symbol)) return reinterpret_cast<uint64_t>(exported);
  if (!MapSymbolFile()) return 0;
  size_t length = strlen(symbol) + 1;
  for (uint64_t i = 0; i < g_file.symbol_count; ++i) {
    const Elf64_Sym& candidate = g_file.symbols[i];
    if (candidate.st_value == 0 || candidate.st_shndx == SHN_UNDEF) continue;
    if (candidate.st_name >= g_file.name_bytes || g_file.name_bytes - candidate.st_name < length) continue;
    if (memcmp(g_file.names + candidate.st_name, symbol, length) == 0) return g_module.bias + candidate.st_value;
  }
  return 0;
}

bool ReadModuleInt(const char* symbol, int32_t* value) {
  uint64_t address = 0;
  if (void* exported = dlsym(RTLD_DEFAULT, symbol)) address = reinterpret_cast<uint64_t>(exported);
  // The whole of .symtab is 300,000 entries: only worth it when the metadata is not exported at all.
  static const bool exported_metadata = dlsym(RTLD_DEFAULT, "v8dbg_HeapObjectTag") != nullptr;
  if (address == 0 && !exported_metadata) address = FindModuleSymbol(symbol);
  return address != 0 && SafeRead(address, value, sizeof *value);
}

uint64_t FindWaitBuiltin() {
  static const uint64_t known = [] {
    g_file.tried = false;
    const uint64_t found = FindModuleSymbol("_ZN2v88internal19Builtin_AtomicsWaitEiPmPNS0_7IsolateE");
    ForgetModuleFile();
    return found;
  }();
  return known;
}

void ForgetModuleFile() {
  if (g_file.data != nullptr) UnmapMemory(const_cast<char*>(g_file.data), g_file.bytes);
  g_file = {};
  g_file.tried = true;
}

}  // namespace nodeleak::preload::v8
