#include "tracer/library_image.h"

#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <link.h>
#include <string.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

// Every glibc process has them.
constexpr const char* kLibcsOwn[] = {"libc.so.6", "libpthread.so.0", "libdl.so.2", "libm.so.6", "ld-linux-x86-64.so.2"};

template <typename T>
bool ReadAt(const std::string& file, uint64_t offset, T* out) {
  if (offset > file.size() || file.size() - offset < sizeof *out) return false;
  memcpy(out, file.data() + offset, sizeof *out);
  return true;
}

std::vector<Elf64_Phdr> ReadSegments(const std::string& file, const Elf64_Ehdr& elf) {
  std::vector<Elf64_Phdr> segments;
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (ReadAt(file, elf.e_phoff + i * sizeof segment, &segment)) segments.push_back(segment);
  }
  return segments;
}

uint64_t FileOffset(const std::vector<Elf64_Phdr>& segments, uint64_t address) {
  for (const Elf64_Phdr& segment : segments)
    if (segment.p_type == PT_LOAD && address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz)
      return segment.p_offset + (address - segment.p_vaddr);
  return LibraryImage::kNoTable;
}

std::string TextAt(const std::string& file, uint64_t offset) {
  return offset < file.size() ? std::string(file.c_str() + offset) : "";
}

void ReadDynamic(const std::string& file, const std::vector<Elf64_Phdr>& segments, LibraryImage* image) {
  const auto dynamic = std::find_if(segments.begin(), segments.end(),
                                    [](const Elf64_Phdr& segment) { return segment.p_type == PT_DYNAMIC; });
  if (dynamic == segments.end()) return;
  std::vector<Elf64_Dyn> entries;
  Elf64_Dyn entry;
  for (uint64_t at = dynamic->p_offset; ReadAt(file, at, &entry) && entry.d_tag != DT_NULL; at += sizeof entry)
    entries.push_back(entry);
  for (const Elf64_Dyn& e : entries) {
    if (e.d_tag == DT_STRTAB) image->strings = FileOffset(segments, e.d_un.d_ptr);
    if (e.d_tag == DT_SYMTAB) image->symbols = FileOffset(segments, e.d_un.d_ptr);
    if (e.d_tag == DT_VERSYM) image->symbol_versions = FileOffset(segments, e.d_un.d_ptr);
    if (e.d_tag == DT_VERNEED) image->needed_versions = FileOffset(segments, e.d_un.d_ptr);
    if (e.d_tag == DT_GNU_HASH) image->hash = FileOffset(segments, e.d_un.d_ptr);
  }
  if (image->strings == LibraryImage::kNoTable) return;
  for (const Elf64_Dyn& e : entries) {
    if (e.d_tag == DT_SONAME) image->name = TextAt(file, image->strings + e.d_un.d_val);
    if (e.d_tag == DT_NEEDED) image->needed.push_back(TextAt(file, image->strings + e.d_un.d_val));
  }
}

bool IsLibcsOwn(const std::string& name) {
  return std::find(std::begin(kLibcsOwn), std::end(kLibcsOwn), name) != std::end(kLibcsOwn);
}

// Where a library lies that this process can load too.
absl::StatusOr<std::string> FindLibrary(const std::string& name) {
  void* handle = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  const link_map* link = nullptr;
  if (handle == nullptr || dlinfo(handle, RTLD_DI_LINKMAP, &link) != 0 || link->l_name == nullptr)
    return absl::NotFoundError(
        absl::StrCat("cannot find ", name, ", which the recorder needs; install nodeleak again"));
  return std::string(link->l_name);
}

absl::Status AddWithNeeded(const std::string& path, std::vector<LibraryImage>* images) {
  absl::StatusOr<LibraryImage> image = ReadLibraryImage(path);
  if (!image.ok()) return image.status();
  for (const std::string& name : image->needed) {
    const bool known =
        std::any_of(images->begin(), images->end(), [&](const LibraryImage& other) { return other.name == name; });
    if (known || IsLibcsOwn(name)) continue;
    absl::StatusOr<std::string> found = FindLibrary(name);
    if (!found.ok()) return found.status();
    if (absl::Status status = AddWithNeeded(*found, images); !status.ok()) return status;
  }
  images->push_back(*std::move(image));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LibraryImage> ReadLibraryImage(const std::string& path) {
  LibraryImage image;
  image.name = path.substr(path.rfind('/') + 1);
  image.bytes = ReadWholeFile(path);
  Elf64_Ehdr elf;
  if (!ReadAt(image.bytes, 0, &elf) || memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0)
    return absl::NotFoundError(absl::StrCat("cannot read the library ", path));
  const std::vector<Elf64_Phdr> segments = ReadSegments(image.bytes, elf);
  ReadDynamic(image.bytes, segments, &image);
  uint64_t end = sizeof elf;
  for (const Elf64_Phdr& segment : segments)
    if (segment.p_type == PT_LOAD) end = std::max(end, segment.p_offset + segment.p_filesz);
  if (end < image.bytes.size()) image.bytes.resize(end);
  elf.e_shoff = 0;
  elf.e_shnum = elf.e_shstrndx = 0;
  memcpy(image.bytes.data(), &elf, sizeof elf);
  return image;
}

absl::StatusOr<std::vector<LibraryImage>> ReadLibraryWithNeeded(const std::string& path) {
  std::vector<LibraryImage> images;
  if (absl::Status status = AddWithNeeded(path, &images); !status.ok()) return status;
  return images;
}

}  // namespace nodeleak::tracer
