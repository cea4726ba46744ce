// Outside node. Function symbols of one module, from one or more ELF symbol tables, ordered once for lookup by address.
#pragma once

#include <libelf.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nodeleak::symbolizer {

struct Symbol {
  std::string name;  // without a symbol version
  uint64_t start = 0;
};

class SymbolTable {
 public:
  // Adds the function symbols of the tables of this type (SHT_SYMTAB, SHT_DYNSYM); returns how many. Names stay in
  // `elf`, which must outlive the table.
  size_t Add(Elf* elf, uint32_t section_type);

  // Adds one symbol that is in no table of a file (.gnu_debugdata).
  void AddNamed(std::string_view name, uint64_t start, uint64_t size, uint8_t info);

  // Call once after the last Add.
  void Order();

  // The innermost function that covers the address; where sizes leave a gap, the label without size before it.
  std::optional<Symbol> Find(uint64_t address) const;

  bool empty() const { return entries_.empty() && labels_.empty(); }

 private:
  struct Entry {
    uint64_t start;
    uint64_t end;  // labels: end of their section
    uint32_t name;
    uint16_t source;  // index in sources_
    uint8_t rank;     // smaller is better among symbols of the same extent
  };
  struct Source {
    Elf* elf;  // nullptr: names are in own_names_
    size_t string_section;
  };
  // From `start` to the start of the next segment, `entry` is the innermost function (kNone: no function).
  struct Segment {
    uint64_t start;
    uint32_t entry;
  };
  static constexpr uint32_t kNone = 0xffffffffu;

  void AddSection(Elf* elf, Elf_Scn* section);
  void BuildSegments();
  void Emit(uint64_t start, uint32_t entry);
  std::string NameOf(const Entry& entry) const;
  std::optional<Symbol> BestOf(const std::vector<Entry>& entries, size_t first) const;
  std::optional<Symbol> FindLabel(uint64_t address, uint64_t not_before) const;

  std::vector<Source> sources_;
  std::string own_names_;
  std::vector<Entry> entries_;  // with a size
  std::vector<Entry> labels_;   // without
  std::vector<Segment> segments_;
};

}  // namespace nodeleak::symbolizer
