#include "symbolizer/elf_file.h"

#include <elfutils/libdwelf.h>
#include <gelf.h>
#include <sys/stat.h>

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nodeleak::symbolizer {
namespace {

// Linkers write 8 (fast), 16 (md5, uuid) or 20 (sha1) bytes; the note allows more.
constexpr ssize_t kMaxBuildIdBytes = 64;

// A mapped file that someone overwrites in place (cp new.node addon.node) while it is open here is a SIGBUS. Reading
// the sections that are needed costs 0.05 s for a node of 150 MB; only debug builds of more than this are mapped.
constexpr off_t kMaxReadBytes = 512 << 20;

Elf_Cmd HowToRead(int fd) {
  struct stat info = {};
  return fstat(fd, &info) == 0 && info.st_size <= kMaxReadBytes ? ELF_C_READ : ELF_C_READ_MMAP_PRIVATE;
}

BuildId ReadBuildId(Elf* elf) {
  const void* bytes = nullptr;
  ssize_t size = dwelf_elf_gnu_build_id(elf, &bytes);
  if (size <= 0 || size > kMaxBuildIdBytes) return {};
  const auto* first = static_cast<const uint8_t*>(bytes);
  return BuildId(first, first + size);
}

DebugLink ReadDebugLink(Elf* elf) {
  DebugLink link;
  GElf_Word crc = 0;
  const char* name = dwelf_elf_gnu_debuglink(elf, &crc);
  // A base name by definition; anything else would lead out of the directories that are searched.
  if (name == nullptr || std::string_view(name).find('/') != std::string_view::npos) return link;
  link.name = name;
  link.crc = crc;
  return link;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ElfFile>> ElfFile::Open(const std::string& path, const std::string& root) {
  static const unsigned version = elf_version(EV_CURRENT);
  if (version == EV_NONE) return absl::InternalError("libelf does not know this ELF version");
  absl::StatusOr<UniqueFd> fd = OpenRegularFile(path, root);
  if (!fd.ok()) return fd.status();
  Elf* elf = elf_begin(fd->get(), HowToRead(fd->get()), nullptr);
  if (elf == nullptr) return absl::DataLossError(absl::StrCat("cannot read ", path, ": ", elf_errmsg(-1)));
  std::unique_ptr<ElfFile> file(new ElfFile(*std::move(fd), elf, path));
  GElf_Ehdr header = {};
  if (elf_kind(elf) != ELF_K_ELF || gelf_getehdr(elf, &header) == nullptr) {
    return absl::DataLossError(absl::StrCat("not an ELF file: ", path));
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return absl::DataLossError(absl::StrCat("neither an executable nor a shared object: ", path));
  }
  file->build_id_ = ReadBuildId(elf);
  file->debug_link_ = ReadDebugLink(elf);
  return file;
}

ElfFile::ElfFile(UniqueFd fd, Elf* elf, std::string path) : fd_(std::move(fd)), elf_(elf), path_(std::move(path)) {}

ElfFile::~ElfFile() { elf_end(elf_); }

bool ElfFile::HasSection(std::string_view name) const {
  size_t names = 0;
  if (elf_getshdrstrndx(elf_, &names) != 0) return false;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr header = {};
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type == SHT_NOBITS) continue;
    const char* found = elf_strptr(elf_, names, header.sh_name);
    if (found != nullptr && name == found) return true;
  }
  return false;
}

}  // namespace nodeleak::symbolizer
