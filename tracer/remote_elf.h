// Outside. The loaded ELF objects of another process, read from its memory alone: program headers, the dynamic linker's
// list, hash tables. No file of the process is opened, so containers and deleted files make no difference. What is read
// is untrusted: every walk is bounded.
#pragma once

#include <elf.h>
#include <stdint.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

struct RemoteSymbol {
  RemoteAddress address;
  uint64_t bytes;
};

struct RemoteObject {
  std::string name;  // as the dynamic linker has it; empty: the program itself
  uint64_t bias = 0;
  RemoteRange range;  // of all its segments
  std::vector<Elf64_Phdr> segments;
  RemoteAddress symbols = RemoteAddress::kNull, strings = RemoteAddress::kNull, hash = RemoteAddress::kNull;
  RemoteAddress defined_versions = RemoteAddress::kNull;  // Elf64_Verdef
  RemoteRange relocations, plt_relocations;               // Elf64_Rela each

  absl::string_view BaseName() const;
  RemoteRange Segment(const Elf64_Phdr& segment) const {
    const auto start = static_cast<RemoteAddress>(bias + segment.p_vaddr);
    return {start, start + segment.p_memsz};
  }
};

class RemoteObjects {
 public:
  static absl::StatusOr<RemoteObjects> Read(const RemoteMemory& memory);

  const std::vector<RemoteObject>& all() const { return objects_; }
  const RemoteObject* FindByBaseName(absl::string_view prefix) const;
  // The object that defines a symbol; the first in the order in which the dynamic linker looks.
  const RemoteObject* FindDefinition(const char* symbol, const RemoteObject* skipped = nullptr) const;

  std::optional<RemoteSymbol> FindSymbol(const RemoteObject& object, const char* symbol) const;

  // "GLIBC_2.34"
  bool DefinesVersion(const RemoteObject& object, absl::string_view version) const;

  // The dynamic linker is changing its list at this moment.
  bool IsLoaderBusy() const;

 private:
  explicit RemoteObjects(const RemoteMemory& memory) : memory_(&memory) {}

  const RemoteMemory* memory_;
  RemoteAddress debug_ = RemoteAddress::kNull;  // r_debug
  std::vector<RemoteObject> objects_;
};

}  // namespace nodeleak::tracer
