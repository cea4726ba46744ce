#include "tracer/older_libc.h"

#include <elf.h>
#include <string.h>

#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"

namespace nodeleak::tracer {
namespace {

constexpr size_t kMaxVersions = 1024;
constexpr uint16_t kAnyVersion = VER_NDX_GLOBAL;
constexpr uint16_t kVersionMask = 0x7fff;  // the uppermost bit says that a definition is hidden

// Before 2.33 these were inline functions of <sys/stat.h>. libunwind opens files by them, for unwind tables that only
// debug information has. In their place stand functions of the same shape that Linux never had: they return -1 with
// ENOSYS, and no such file is read.
struct Substitute {
  const char *missing, *instead;
};
constexpr Substitute kSubstitutes[] = {{"stat", "chflags"}, {"fstat", "fchflags"}};

class Image {
 public:
  explicit Image(LibraryImage* image) : image_(*image) {}

  template <typename T>
  bool Read(uint64_t offset, T* out) const {
    if (offset > image_.bytes.size() || image_.bytes.size() - offset < sizeof *out) return false;
    memcpy(out, image_.bytes.data() + offset, sizeof *out);
    return true;
  }
  // Only where it was read.
  template <typename T>
  void Write(uint64_t offset, const T& value) {
    memcpy(image_.bytes.data() + offset, &value, sizeof value);
  }

  std::string Name(uint64_t offset) const {
    const uint64_t at = image_.strings + offset;
    return at < image_.bytes.size() ? std::string(image_.bytes.c_str() + at) : "";
  }

  // Versions that this libc does not have: none of them is an error from now on.
  void ForgetMissingVersions(const LibcFeatures& libc) {
    Elf64_Verneed need;
    uint64_t at = image_.needed_versions;
    for (size_t count = 0; count < kMaxVersions && Read(at, &need); ++count, at += need.vn_next) {
      ForgetMissingVersions(libc, Name(need.vn_file), at + need.vn_aux, need.vn_cnt);
      if (need.vn_next == 0) break;
    }
    for (uint64_t name : used_) spare_.erase(name);
  }

  // Undefined symbols are in front of the first that has a hash.
  void AskByNameAlone(const LibcFeatures& libc) {
    uint32_t hash_header[2];  // buckets, first symbol
    if (missing_.empty() || !Read(image_.hash, &hash_header)) return;
    for (uint64_t i = 1; i < hash_header[1]; ++i) {
      const uint64_t at = image_.symbol_versions + i * sizeof(uint16_t);
      uint16_t version;
      if (!Read(at, &version)) return;
      if (missing_.count(version & kVersionMask) == 0) continue;
      Write(at, kAnyVersion);
      Replace(libc, image_.symbols + i * sizeof(Elf64_Sym));
    }
  }

 private:
  void ForgetMissingVersions(const LibcFeatures& libc, const std::string& library, uint64_t at, size_t count) {
    Elf64_Vernaux version;
    for (size_t i = 0; i < count && Read(at, &version); ++i, at += version.vna_next) {
      const std::string name = Name(version.vna_name);
      // GLIBC_ABI_... stands for something that the dynamic linker itself must be able to do.
      if (!absl::StartsWith(name, "GLIBC_2.") || libc.defines_version(library, name)) {
        used_.insert(version.vna_name);
        continue;
      }
      version.vna_flags |= VER_FLG_WEAK;
      Write(at, version);
      missing_.insert(version.vna_other & kVersionMask);
      spare_[version.vna_name] = name.size() + 1;
    }
  }

  void Replace(const LibcFeatures& libc, uint64_t at) {
    Elf64_Sym symbol;
    if (!Read(at, &symbol)) return;
    for (const Substitute& row : kSubstitutes) {
      if (Name(symbol.st_name) != row.missing || libc.has_function(row.missing)) continue;
      const size_t bytes = strlen(row.instead) + 1;
      const auto room = spare_.begin();
      if (!libc.has_function(row.instead) || room == spare_.end() || room->second < bytes) return;
      symbol.st_name = static_cast<Elf64_Word>(room->first);
      memcpy(image_.bytes.data() + image_.strings + symbol.st_name, row.instead, bytes);
      spare_.erase(room);
      Write(at, symbol);
      return;
    }
  }

  LibraryImage& image_;
  std::set<uint16_t> missing_;
  std::set<uint64_t> used_;           // names of versions, by their places in the string table
  std::map<uint64_t, size_t> spare_;  // those that nobody reads any more, with their bytes and the NUL
};

}  // namespace

void FitToOlderLibc(const LibcFeatures& libc, LibraryImage* image) {
  if (image->strings == LibraryImage::kNoTable || image->needed_versions == LibraryImage::kNoTable) return;
  Image edited(image);
  edited.ForgetMissingVersions(libc);
  edited.AskByNameAlone(libc);
}

}  // namespace nodeleak::tracer
