// Outside node. DWARF of one file: address to source line and inlined functions.
//
// Indexed lazily: compile units by range at opening, the functions of a unit when an address first falls into it.
// Depth and number of entries that are looked at are bounded: the file is untrusted.
#pragma once

#include <elfutils/libdw.h>
#include <libelf.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace nodeleak::symbolizer {

struct SourceFrame {
  std::string linkage_name;  // "" when DWARF has none (C, functions local to a file)
  std::string name;          // qualified by hand from the enclosing scopes; for when there is no linkage name
  std::string file;
  uint32_t line = 0;
  uint32_t column = 0;
  bool inlined = false;
};

class DebugInfo {
 public:
  // nullptr when the file has no usable DWARF. `elf` must outlive it.
  static std::unique_ptr<DebugInfo> Open(Elf* elf);
  ~DebugInfo();
  DebugInfo(const DebugInfo&) = delete;
  DebugInfo& operator=(const DebugInfo&) = delete;

  // Innermost first; the last one is the function that is not inlined. Empty when the address is not covered.
  std::vector<SourceFrame> Find(uint64_t address);

 private:
  struct Range {
    uint64_t low;
    uint64_t high;
    uint32_t index;  // of the unit or function
  };
  // A namespace, class or module that names stand in.
  struct Scope {
    std::string name;
    uint32_t parent;
  };
  struct Unit {
    Dwarf_Die die;
    bool indexed = false;
    std::vector<Dwarf_Die> functions;
    std::vector<Range> ranges;  // of functions
    std::vector<Scope> scopes;
    absl::flat_hash_map<Dwarf_Off, uint32_t> scope_of;  // functions (declared or defined) that are not at top level
  };

  explicit DebugInfo(Dwarf* dwarf) : dwarf_(dwarf) {}
  void IndexUnits();
  void IndexFunctions(Unit& unit);
  void IndexScope(Unit& unit, Dwarf_Die first, uint32_t scope, int depth, size_t& budget);
  static void AddRanges(Dwarf_Die* die, uint32_t index, std::vector<Range>& ranges);
  static const Range* FindRange(const std::vector<Range>& ranges, uint64_t address);
  static std::vector<Dwarf_Die> FindInlineChain(Dwarf_Die function, uint64_t address);
  std::string QualifiedName(const Unit& unit, Dwarf_Die* function) const;

  Dwarf* dwarf_;
  std::vector<Unit> units_;
  std::vector<Range> unit_ranges_;
};

}  // namespace nodeleak::symbolizer
