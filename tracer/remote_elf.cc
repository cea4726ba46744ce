#include "tracer/remote_elf.h"

#include <link.h>
#include <string.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

constexpr size_t kMaxObjects = 4096;
constexpr size_t kMaxSegments = 64;
constexpr size_t kMaxDynamicEntries = 512;
constexpr uint32_t kMaxChain = 1 << 16;
constexpr size_t kMaxVersions = 1024;

uint64_t AuxiliaryValue(const std::string& auxv, uint64_t type) {
  for (size_t at = 0; at + sizeof(Elf64_auxv_t) <= auxv.size(); at += sizeof(Elf64_auxv_t)) {
    Elf64_auxv_t entry;
    memcpy(&entry, auxv.data() + at, sizeof entry);
    if (entry.a_type == type) return entry.a_un.a_val;
  }
  return 0;
}

std::vector<Elf64_Phdr> ReadSegments(const RemoteMemory& memory, RemoteAddress address, size_t count) {
  std::vector<Elf64_Phdr> segments(std::min(count, kMaxSegments));
  if (!memory.TryRead(address, segments.data(), segments.size() * sizeof(Elf64_Phdr))) segments.clear();
  return segments;
}

std::vector<Elf64_Dyn> ReadDynamic(const RemoteMemory& memory, RemoteAddress address) {
  std::vector<Elf64_Dyn> entries;
  for (size_t i = 0; i < kMaxDynamicEntries; ++i) {
    Elf64_Dyn entry;
    if (!memory.TryRead(address + i * sizeof entry, &entry, sizeof entry) || entry.d_tag == DT_NULL) break;
    entries.push_back(entry);
  }
  return entries;
}

// The dynamic linker has turned offsets into addresses, except in the vDSO.
RemoteAddress DynamicAddress(const RemoteObject& object, uint64_t value) {
  return static_cast<RemoteAddress>(value < object.bias ? value + object.bias : value);
}

void FindTables(const RemoteMemory& memory, RemoteAddress dynamic, RemoteObject* object) {
  uint64_t relocation_bytes = 0, plt_bytes = 0;
  for (const Elf64_Dyn& entry : ReadDynamic(memory, dynamic)) {
    if (entry.d_tag == DT_RELA) object->relocations.start = DynamicAddress(*object, entry.d_un.d_ptr);
    if (entry.d_tag == DT_RELASZ) relocation_bytes = entry.d_un.d_val;
    if (entry.d_tag == DT_JMPREL) object->plt_relocations.start = DynamicAddress(*object, entry.d_un.d_ptr);
    if (entry.d_tag == DT_PLTRELSZ) plt_bytes = entry.d_un.d_val;
    if (entry.d_tag == DT_SYMTAB) object->symbols = DynamicAddress(*object, entry.d_un.d_ptr);
    if (entry.d_tag == DT_STRTAB) object->strings = DynamicAddress(*object, entry.d_un.d_ptr);
    if (entry.d_tag == DT_VERDEF) object->defined_versions = DynamicAddress(*object, entry.d_un.d_ptr);
    if (entry.d_tag == DT_GNU_HASH) object->hash = DynamicAddress(*object, entry.d_un.d_ptr);
  }
  object->relocations.end = object->relocations.start + relocation_bytes;
  object->plt_relocations.end = object->plt_relocations.start + plt_bytes;
}

void FindRange(RemoteObject* object) {
  uint64_t low = UINT64_MAX, high = 0;
  for (const Elf64_Phdr& segment : object->segments) {
    if (segment.p_type != PT_LOAD) continue;
    low = std::min(low, object->bias + segment.p_vaddr);
    high = std::max(high, object->bias + segment.p_vaddr + segment.p_memsz);
  }
  if (low < high) object->range = {static_cast<RemoteAddress>(low), static_cast<RemoteAddress>(high)};
}

uint32_t GnuHash(const char* name) {
  uint32_t hash = 5381;
  for (; *name != '\0'; ++name) hash = hash * 33 + static_cast<uint8_t>(*name);
  return hash;
}

struct Program {
  uint64_t bias = 0;
  std::vector<Elf64_Phdr> segments;
};

absl::StatusOr<Program> ReadProgram(const RemoteMemory& memory) {
  const std::string auxv = ReadProcFile(memory.pid(), "auxv");
  if (auxv.empty()) return absl::UnavailableError("it is ending");  // its memory is gone
  const uint64_t headers = AuxiliaryValue(auxv, AT_PHDR);
  if (headers == 0) return absl::UnavailableError("it has no program headers in memory");
  Program program;
  program.segments = ReadSegments(memory, static_cast<RemoteAddress>(headers), AuxiliaryValue(auxv, AT_PHNUM));
  for (const Elf64_Phdr& segment : program.segments)
    if (segment.p_type == PT_PHDR) program.bias = headers - segment.p_vaddr;
  return program;
}

}  // namespace

absl::string_view RemoteObject::BaseName() const { return absl::string_view(name).substr(name.rfind('/') + 1); }

absl::StatusOr<RemoteObjects> RemoteObjects::Read(const RemoteMemory& memory) {
  absl::StatusOr<Program> program = ReadProgram(memory);
  if (!program.ok()) return program.status();
  RemoteObjects objects(memory);
  for (const Elf64_Phdr& segment : program->segments) {
    if (segment.p_type != PT_DYNAMIC) continue;
    for (const Elf64_Dyn& entry : ReadDynamic(memory, static_cast<RemoteAddress>(program->bias + segment.p_vaddr)))
      if (entry.d_tag == DT_DEBUG) objects.debug_ = static_cast<RemoteAddress>(entry.d_un.d_ptr);
  }
  r_debug debug;
  if (objects.debug_ == RemoteAddress::kNull || !memory.TryRead(objects.debug_, &debug, sizeof debug))
    return absl::FailedPreconditionError("it has no list of loaded libraries (statically linked, or still starting?)");
  auto next = reinterpret_cast<uint64_t>(debug.r_map);
  while (next != 0 && objects.objects_.size() < kMaxObjects) {
    link_map link;
    if (!memory.TryRead(static_cast<RemoteAddress>(next), &link, sizeof link)) break;
    next = reinterpret_cast<uint64_t>(link.l_next);
    RemoteObject object;
    object.bias = link.l_addr;
    object.name = memory.ReadString(static_cast<RemoteAddress>(reinterpret_cast<uint64_t>(link.l_name)));
    if (objects.objects_.empty()) {
      object.segments = program->segments;
    } else {
      Elf64_Ehdr header;
      const auto start = static_cast<RemoteAddress>(link.l_addr);
      if (memory.TryRead(start, &header, sizeof header) && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0)
        object.segments = ReadSegments(memory, start + header.e_phoff, header.e_phnum);
    }
    FindRange(&object);
    FindTables(memory, static_cast<RemoteAddress>(reinterpret_cast<uint64_t>(link.l_ld)), &object);
    objects.objects_.push_back(std::move(object));
  }
  if (objects.objects_.empty())
    return absl::UnavailableError("its list of loaded libraries is empty (still starting?)");
  return objects;
}

const RemoteObject* RemoteObjects::FindByBaseName(absl::string_view prefix) const {
  for (const RemoteObject& object : objects_)
    if (absl::StartsWith(object.BaseName(), prefix)) return &object;
  return nullptr;
}

const RemoteObject* RemoteObjects::FindDefinition(const char* symbol, const RemoteObject* skipped) const {
  for (const RemoteObject& object : objects_)
    if (&object != skipped && FindSymbol(object, symbol).has_value()) return &object;
  return nullptr;
}

std::optional<RemoteSymbol> RemoteObjects::FindSymbol(const RemoteObject& object, const char* symbol) const {
  struct {
    uint32_t buckets, first, bloom_words, bloom_shift;
  } header;
  if (object.hash == RemoteAddress::kNull || !memory_->TryRead(object.hash, &header, sizeof header) ||
      header.buckets == 0)
    return std::nullopt;
  const RemoteAddress buckets = object.hash + sizeof header + uint64_t{8} * header.bloom_words;
  const RemoteAddress chains = buckets + uint64_t{4} * header.buckets;
  const uint32_t hash = GnuHash(symbol);
  uint32_t index;
  if (!memory_->TryRead(buckets + uint64_t{4} * (hash % header.buckets), &index, sizeof index) || index < header.first)
    return std::nullopt;
  for (uint32_t steps = 0; steps < kMaxChain; ++steps, ++index) {
    uint32_t chain;
    if (!memory_->TryRead(chains + uint64_t{4} * (index - header.first), &chain, sizeof chain)) break;
    Elf64_Sym found;
    if ((chain | 1) == (hash | 1) && memory_->TryRead(object.symbols + sizeof found * index, &found, sizeof found) &&
        found.st_shndx != SHN_UNDEF && found.st_value != 0 &&
        memory_->ReadString(object.strings + found.st_name) == symbol)
      return RemoteSymbol{static_cast<RemoteAddress>(object.bias + found.st_value), found.st_size};
    if ((chain & 1) != 0) break;
  }
  return std::nullopt;
}

bool RemoteObjects::DefinesVersion(const RemoteObject& object, absl::string_view version) const {
  RemoteAddress at = object.defined_versions;
  for (size_t count = 0; at != RemoteAddress::kNull && count < kMaxVersions; ++count) {
    Elf64_Verdef definition;
    Elf64_Verdaux name;
    if (!memory_->TryRead(at, &definition, sizeof definition) ||
        !memory_->TryRead(at + definition.vd_aux, &name, sizeof name))
      break;
    if (memory_->ReadString(object.strings + name.vda_name) == version) return true;
    if (definition.vd_next == 0) break;
    at = at + definition.vd_next;
  }
  return false;
}

bool RemoteObjects::IsLoaderBusy() const {
  r_debug debug;
  return memory_->TryRead(debug_, &debug, sizeof debug) && debug.r_state != r_debug::RT_CONSISTENT;
}

}  // namespace nodeleak::tracer
