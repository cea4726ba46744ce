// Outside node. An opened ELF file: libelf's handle, its build id, its links to separate debug files.
#pragma once

#include <libelf.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/regular_file.h"

namespace nodeleak::symbolizer {

using BuildId = std::vector<uint8_t>;

struct DebugLink {
  std::string name;  // "" when the file has no .gnu_debuglink
  uint32_t crc = 0;
};

class ElfFile {
 public:
  // Only executables and shared objects (ET_EXEC, ET_DYN).
  static absl::StatusOr<std::unique_ptr<ElfFile>> Open(const std::string& path, const std::string& root);
  ~ElfFile();
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  Elf* elf() const { return elf_; }
  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  const BuildId& build_id() const { return build_id_; }
  const DebugLink& debug_link() const { return debug_link_; }
  bool HasSection(std::string_view name) const;

 private:
  ElfFile(UniqueFd fd, Elf* elf, std::string path);

  UniqueFd fd_;
  Elf* elf_;
  std::string path_;
  BuildId build_id_;
  DebugLink debug_link_;
};

}  // namespace nodeleak::symbolizer
