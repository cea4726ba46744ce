#include "symbolizer/debug_file.h"

#include <elfutils/libdwfl.h>
#include <errno.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace nodeleak::symbolizer {
namespace {

std::string DirectoryOf(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string BuildIdPath(const std::string& directory, const BuildId& id) {
  const std::string hex = absl::BytesToHexString(std::string(id.begin(), id.end()));
  return absl::StrCat(directory, "/.build-id/", hex.substr(0, 2), "/", hex.substr(2), ".debug");
}

std::vector<std::string> Candidates(const ElfFile& module, const std::vector<std::string>& debug_directories) {
  std::vector<std::string> paths;
  if (module.build_id().size() > 1) {
    for (const std::string& directory : debug_directories) paths.push_back(BuildIdPath(directory, module.build_id()));
  }
  const std::string& link = module.debug_link().name;
  if (link.empty()) return paths;
  const std::string beside = DirectoryOf(module.path());
  paths.push_back(absl::StrCat(beside, "/", link));
  paths.push_back(absl::StrCat(beside, "/.debug/", link));
  for (const std::string& directory : debug_directories) paths.push_back(absl::StrCat(directory, beside, "/", link));
  return paths;
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  constexpr uint32_t kPolynomial = 0xedb88320;  // CRC-32 of IEEE 802.3, reflected
  std::array<uint32_t, 256> table = {};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

bool CrcFits(int fd, uint32_t expected) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  std::vector<uint8_t> buffer(1 << 16);
  uint32_t crc = 0xffffffff;
  for (off_t position = 0;;) {
    ssize_t got = pread(fd, buffer.data(), buffer.size(), position);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) return ~crc == expected;
    for (ssize_t i = 0; i < got; ++i) crc = kTable[(crc ^ buffer[static_cast<size_t>(i)]) & 0xff] ^ (crc >> 8);
    position += got;
  }
}

bool Belongs(const ElfFile& debug_file, const ElfFile& module) {
  if (!debug_file.build_id().empty() && !module.build_id().empty()) return debug_file.build_id() == module.build_id();
  return !module.debug_link().name.empty() && CrcFits(debug_file.fd(), module.debug_link().crc);
}

// The debuglink of a module may name the module itself (same name, stripped in place).
bool HasDebugSections(const ElfFile& file) { return file.HasSection(".symtab") || file.HasSection(".debug_info"); }

// For Dwfl: no separate debug files from here; FindDebugFile has looked already.
int FindNoDebugFile(Dwfl_Module*, void**, const char*, Dwarf_Addr, const char*, const char*, GElf_Word, char**) {
  return -1;
}

}  // namespace

std::unique_ptr<ElfFile> FindDebugFile(const ElfFile& module, const std::string& root,
                                       const std::vector<std::string>& debug_directories) {
  for (const std::string& path : Candidates(module, debug_directories)) {
    // Ours second: debug packages are often installed on the host, not in the container.
    for (const std::string& from : {root, std::string()}) {
      absl::StatusOr<std::unique_ptr<ElfFile>> file = ElfFile::Open(path, from);
      if (file.ok() && HasDebugSections(**file) && Belongs(**file, module)) return *std::move(file);
      if (root.empty()) break;
    }
  }
  return nullptr;
}

size_t AddMiniDebugSymbols(const ElfFile& module, SymbolTable& table) {
  if (!module.HasSection(".gnu_debugdata")) return 0;
  static const Dwfl_Callbacks kCallbacks = {nullptr, FindNoDebugFile, nullptr, nullptr};
  std::unique_ptr<Dwfl, void (*)(Dwfl*)> dwfl(dwfl_begin(&kCallbacks), dwfl_end);
  const int fd = dup(module.fd());  // dwfl takes it over when it succeeds
  if (dwfl == nullptr || fd < 0) return 0;
  Dwfl_Module* loaded = dwfl_report_elf(dwfl.get(), module.path().c_str(), module.path().c_str(), fd, 0, true);
  if (loaded == nullptr) {
    close(fd);
    return 0;
  }
  dwfl_report_end(dwfl.get(), nullptr, nullptr);
  GElf_Addr bias = 0;
  if (dwfl_module_getelf(loaded, &bias) == nullptr) return 0;
  size_t added = 0;
  const int count = dwfl_module_getsymtab(loaded);
  for (int i = 1; i < count; ++i) {
    GElf_Sym symbol = {};
    GElf_Addr address = 0;
    GElf_Word section = 0;
    const char* name = dwfl_module_getsym_info(loaded, i, &symbol, &address, &section, nullptr, nullptr);
    if (name == nullptr || section == SHN_UNDEF || section == SHN_ABS) continue;
    table.AddNamed(name, address - bias, symbol.st_size, symbol.st_info);
    ++added;
  }
  return added;
}

}  // namespace nodeleak::symbolizer
