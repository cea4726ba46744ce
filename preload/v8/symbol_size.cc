#include "preload/v8/symbol_size.h"

#include <link.h>
#include <string.h>

namespace nodeleak::preload::v8 {
namespace {

struct Search {
  const char* name;
  uint64_t address;
  uint64_t size;
};

// What of a module's dynamic section is needed (System V ABI; DT_GNU_HASH as binutils writes it).
struct Tables {
  const ElfW(Sym) * symbols = nullptr;
  const char* strings = nullptr;
  const uint32_t* hash = nullptr;
};

Tables FindTables(uint64_t bias, const ElfW(Dyn) * entry) {
  // The dynamic linker has turned offsets into addresses, except in the vDSO.
  const auto at = [bias](uint64_t value) { return value < bias ? value + bias : value; };
  Tables tables;
  for (; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_SYMTAB) tables.symbols = reinterpret_cast<const ElfW(Sym)*>(at(entry->d_un.d_ptr));
    if (entry->d_tag == DT_STRTAB) tables.strings = reinterpret_cast<const char*>(at(entry->d_un.d_ptr));
    if (entry->d_tag == DT_GNU_HASH) tables.hash = reinterpret_cast<const uint32_t*>(at(entry->d_un.d_ptr));
  }
  return tables;
}

uint32_t GnuHash(const char* name) {
  uint32_t hash = 5381;
  for (; *name != '\0'; ++name) hash = hash * 33 + static_cast<uint8_t>(*name);
  return hash;
}

uint64_t SizeIn(const Tables& tables, uint64_t bias, const Search& search) {
  if (tables.symbols == nullptr || tables.strings == nullptr || tables.hash == nullptr) return 0;
  const uint32_t bucket_count = tables.hash[0], first = tables.hash[1], bloom_words = tables.hash[2];
  const uint32_t* buckets = tables.hash + 4 + uint64_t{2} * bloom_words;
  const uint32_t* chains = buckets + bucket_count;
  if (bucket_count == 0) return 0;
  const uint32_t hash = GnuHash(search.name);
  uint32_t index = buckets[hash % bucket_count];
  if (index < first) return 0;
  for (bool last = false; !last; ++index) {
    const uint32_t entry = chains[index - first];
    last = (entry & 1) != 0;  // the chain's last
    if ((entry ^ hash) >> 1 != 0) continue;
    const ElfW(Sym)& symbol = tables.symbols[index];
    if (bias + symbol.st_value == search.address && strcmp(tables.strings + symbol.st_name, search.name) == 0)
      return symbol.st_size;
  }
  return 0;
}

int LookInModule(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  const ElfW(Dyn)* dynamic = nullptr;
  bool holds_address = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    const uint64_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(start);
    holds_address |= segment.p_type == PT_LOAD && search->address - start < segment.p_memsz;
  }
  if (!holds_address) return 0;
  if (dynamic != nullptr) search->size = SizeIn(FindTables(info->dlpi_addr, dynamic), info->dlpi_addr, *search);
  return 1;
}

}  // namespace

uint64_t SymbolSize(const char* name, const void* address) {
  Search search = {name, reinterpret_cast<uint64_t>(address), 0};
  dl_iterate_phdr(LookInModule, &search);
  return search.size;
}

}  // namespace nodeleak::preload::v8
