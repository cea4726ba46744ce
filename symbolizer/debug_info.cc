#include "symbolizer/debug_info.h"

#include <dwarf.h>
#include <gelf.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nodeleak::symbolizer {
namespace {

constexpr int kMaxDepth = 128;                    // of nested scopes and inlined calls
constexpr size_t kMaxEntriesOfUnit = 20'000'000;  // looked at in one unit
constexpr size_t kMaxEntriesOfFunction = 1'000'000;
constexpr int kMaxReferences = 16;  // abstract origin, specification, ...
constexpr uint32_t kNoScope = 0xffffffffu;

bool HoldsFunctions(int tag) {
  switch (tag) {
    case DW_TAG_namespace:  // Rust defines functions in here
    case DW_TAG_module:
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type:
    case DW_TAG_interface_type:
      return true;
    default:
      return false;
  }
}

// Tags below a function that contain code: what inlined calls stand in.
bool HoldsInlinedCalls(int tag) {
  return tag == DW_TAG_lexical_block || tag == DW_TAG_try_block || tag == DW_TAG_catch_block ||
         tag == DW_TAG_with_stmt || tag == DW_TAG_inlined_subroutine;
}

std::optional<Dwarf_Die> FollowReference(Dwarf_Die* die, unsigned attribute) {
  Dwarf_Attribute value;
  Dwarf_Die target;
  if (dwarf_attr(die, attribute, &value) == nullptr || dwarf_formref_die(&value, &target) == nullptr) {
    return std::nullopt;
  }
  return target;
}

std::string StringAttribute(Dwarf_Die* die, unsigned attribute) {
  Dwarf_Attribute value;
  const char* text = dwarf_formstring(dwarf_attr(die, attribute, &value));
  return text == nullptr ? "" : text;
}

uint32_t NumberAttribute(Dwarf_Die* die, unsigned attribute) {
  Dwarf_Attribute value;
  Dwarf_Word number = 0;
  if (dwarf_formudata(dwarf_attr(die, attribute, &value), &number) != 0 || number > UINT32_MAX) return 0;
  return static_cast<uint32_t>(number);
}

// The entry itself, then what it is an instance of, then its declaration in a class: names are on any of them.
std::vector<Dwarf_Die> WithOrigins(Dwarf_Die die) {
  std::vector<Dwarf_Die> chain = {die};
  while (chain.size() < kMaxReferences) {
    std::optional<Dwarf_Die> next = FollowReference(&chain.back(), DW_AT_abstract_origin);
    if (!next) next = FollowReference(&chain.back(), DW_AT_specification);
    if (!next) break;
    chain.push_back(*next);
  }
  return chain;
}

std::string LinkageName(Dwarf_Die function) {
  for (Dwarf_Die& die : WithOrigins(function)) {
    for (unsigned attribute : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
      std::string name = StringAttribute(&die, attribute);
      if (!name.empty()) return name;
    }
  }
  return "";
}

// The source file with this number in the line table of the unit.
std::string FileOfUnit(Dwarf_Die* unit, uint32_t index) {
  Dwarf_Files* files = nullptr;
  size_t count = 0;
  if (dwarf_getsrcfiles(unit, &files, &count) != 0 || index >= count) return "";
  const char* name = dwarf_filesrc(files, index, nullptr, nullptr);
  return name == nullptr ? "" : name;
}

void SetLine(Dwarf_Die* unit, uint64_t address, SourceFrame& frame) {
  Dwarf_Line* line = dwarf_getsrc_die(unit, address);
  if (line == nullptr) return;
  const char* file = dwarf_linesrc(line, nullptr, nullptr);
  int number = 0;
  int column = 0;
  if (file == nullptr || dwarf_lineno(line, &number) != 0 || number <= 0) return;
  frame.file = file;
  frame.line = static_cast<uint32_t>(number);
  if (dwarf_linecol(line, &column) == 0 && column > 0) frame.column = static_cast<uint32_t>(column);
}

// libdw 0.188 looks for the end of a string with strlen: in a damaged file, far behind the section. The bytes are ours:
// a copy, or pages mapped privately (elf_file.cc).
void EndLastStrings(Elf* elf) {
  size_t names = 0;
  if (elf_getshdrstrndx(elf, &names) != 0) return;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header;
    const char* name = gelf_getshdr(section, &header) == nullptr ? nullptr : elf_strptr(elf, names, header.sh_name);
    if (name == nullptr || (header.sh_flags & SHF_COMPRESSED) != 0) continue;  // what was packed is unpacked by now
    if (absl::string_view(name) != ".debug_str" && absl::string_view(name) != ".debug_line_str") continue;
    const Elf_Data* data = elf_rawdata(section, nullptr);
    if (data == nullptr || data->d_buf == nullptr || data->d_size == 0) continue;
    static_cast<char*>(data->d_buf)[data->d_size - 1] = '\0';
  }
}

}  // namespace

std::unique_ptr<DebugInfo> DebugInfo::Open(Elf* elf) {
  Dwarf* dwarf = dwarf_begin_elf(elf, DWARF_C_READ, nullptr);
  if (dwarf == nullptr) return nullptr;
  EndLastStrings(elf);
  std::unique_ptr<DebugInfo> info(new DebugInfo(dwarf));
  info->IndexUnits();
  return info->unit_ranges_.empty() ? nullptr : std::move(info);
}

DebugInfo::~DebugInfo() { dwarf_end(dwarf_); }

void DebugInfo::AddRanges(Dwarf_Die* die, uint32_t index, std::vector<Range>& ranges) {
  Dwarf_Addr base = 0;
  Dwarf_Addr low = 0;
  Dwarf_Addr high = 0;
  for (ptrdiff_t offset = 0; (offset = dwarf_ranges(die, offset, &base, &low, &high)) > 0;) {
    // Low 0: a function that the linker threw away.
    if (low != 0 && low < high) ranges.push_back({low, high, index});
  }
}

// The range that starts last among those that cover the address. Ranges of units and functions do not overlap in a sane
// file; in another one some answers are missing.
const DebugInfo::Range* DebugInfo::FindRange(const std::vector<Range>& ranges, uint64_t address) {
  auto after = std::upper_bound(ranges.begin(), ranges.end(), address,
                                [](uint64_t value, const Range& range) { return value < range.low; });
  constexpr int kLookBack = 8;
  for (int i = 0; i < kLookBack && after != ranges.begin(); ++i) {
    --after;
    if (address < after->high) return &*after;
  }
  return nullptr;
}

void DebugInfo::IndexUnits() {
  Dwarf_CU* cu = nullptr;
  Dwarf_Die die;
  uint8_t unit_type = 0;
  while (dwarf_get_units(dwarf_, cu, &cu, nullptr, &unit_type, &die, nullptr) == 0) {
    if (unit_type != DW_UT_compile && unit_type != DW_UT_skeleton) continue;
    AddRanges(&die, static_cast<uint32_t>(units_.size()), unit_ranges_);
    units_.push_back({.die = die});
  }
  std::sort(unit_ranges_.begin(), unit_ranges_.end(),
            [](const Range& a, const Range& b) { return std::tie(a.low, a.index) < std::tie(b.low, b.index); });
}

void DebugInfo::IndexFunctions(Unit& unit) {
  if (unit.indexed) return;
  unit.indexed = true;
  Dwarf_Die first;
  size_t budget = kMaxEntriesOfUnit;
  if (dwarf_child(&unit.die, &first) == 0) IndexScope(unit, first, kNoScope, 0, budget);
  std::sort(unit.ranges.begin(), unit.ranges.end(),
            [](const Range& a, const Range& b) { return std::tie(a.low, a.index) < std::tie(b.low, b.index); });
}

void DebugInfo::IndexScope(Unit& unit, Dwarf_Die first, uint32_t scope, int depth, size_t& budget) {
  Dwarf_Die die = first;
  do {
    if (budget-- == 0) {
      budget = 0;
      return;
    }
    const int tag = dwarf_tag(&die);
    if (tag == DW_TAG_subprogram) {
      if (scope != kNoScope) unit.scope_of.emplace(dwarf_dieoffset(&die), scope);
      AddRanges(&die, static_cast<uint32_t>(unit.functions.size()), unit.ranges);
      unit.functions.push_back(die);
    } else if (HoldsFunctions(tag) && depth < kMaxDepth) {
      Dwarf_Die child;
      if (dwarf_child(&die, &child) != 0) continue;
      unit.scopes.push_back({StringAttribute(&die, DW_AT_name), scope});
      IndexScope(unit, child, static_cast<uint32_t>(unit.scopes.size() - 1), depth + 1, budget);
    }
  } while (dwarf_siblingof(&die, &die) == 0);
}

// The inlined calls that cover the address, outermost first.
std::vector<Dwarf_Die> DebugInfo::FindInlineChain(Dwarf_Die function, uint64_t address) {
  std::vector<Dwarf_Die> chain;
  Dwarf_Die die;
  size_t budget = kMaxEntriesOfFunction;
  if (dwarf_child(&function, &die) != 0) return chain;
  for (int depth = 0; depth < kMaxDepth;) {
    if (budget-- == 0) break;
    const int tag = dwarf_tag(&die);
    if (HoldsInlinedCalls(tag) && dwarf_haspc(&die, address) == 1) {
      if (tag == DW_TAG_inlined_subroutine) chain.push_back(die);
      ++depth;
      if (dwarf_child(&die, &die) != 0) break;
      continue;
    }
    if (dwarf_siblingof(&die, &die) != 0) break;
  }
  return chain;
}

// GCC gives the function of a lambda no linkage name once it is inlined, and its class no name at all: what the lambda
// was called by, "operator()", would be all that is left.
bool IsLambdaOfGcc(Dwarf_Die* function) {
  const std::optional<Dwarf_Die> object = FollowReference(function, DW_AT_object_pointer);
  Dwarf_Die parameter = object.value_or(Dwarf_Die{});
  return object.has_value() && StringAttribute(&parameter, DW_AT_name) == "__closure";
}

std::string DebugInfo::QualifiedName(const Unit& unit, Dwarf_Die* function) const {
  std::string name;
  for (Dwarf_Die& die : WithOrigins(*function)) {
    if (name.empty()) name = IsLambdaOfGcc(&die) ? "lambda" : StringAttribute(&die, DW_AT_name);
    if (name.empty()) continue;
    auto found = unit.scope_of.find(dwarf_dieoffset(&die));
    if (found == unit.scope_of.end()) continue;
    // Parents come before their children, so this ends.
    for (uint32_t scope = found->second; scope != kNoScope; scope = unit.scopes[scope].parent) {
      const std::string& outer = unit.scopes[scope].name;
      name = absl::StrCat(outer.empty() ? "(anonymous namespace)" : outer, "::", name);
    }
    break;
  }
  return name;
}

std::vector<SourceFrame> DebugInfo::Find(uint64_t address) {
  const Range* unit_range = FindRange(unit_ranges_, address);
  if (unit_range == nullptr) return {};
  Unit& unit = units_[unit_range->index];
  IndexFunctions(unit);

  SourceFrame innermost;
  SetLine(&unit.die, address, innermost);
  const Range* range = FindRange(unit.ranges, address);
  if (range == nullptr) {
    // Assembler: a unit with lines and no functions.
    if (innermost.line == 0) return {};
    return {std::move(innermost)};
  }
  std::vector<Dwarf_Die> chain = FindInlineChain(unit.functions[range->index], address);
  std::vector<SourceFrame> frames;
  SourceFrame frame = std::move(innermost);
  while (true) {
    const bool inlined = !chain.empty();
    Dwarf_Die die = inlined ? chain.back() : unit.functions[range->index];
    frame.inlined = inlined;
    frame.linkage_name = LinkageName(die);
    frame.name = QualifiedName(unit, &die);
    frames.push_back(std::move(frame));
    if (!inlined) return frames;
    // The caller stands at the line of the call.
    frame = SourceFrame();
    frame.line = NumberAttribute(&die, DW_AT_call_line);
    frame.column = NumberAttribute(&die, DW_AT_call_column);
    if (frame.line != 0) frame.file = FileOfUnit(&unit.die, NumberAttribute(&die, DW_AT_call_file));
    chain.pop_back();
  }
}

}  // namespace nodeleak::symbolizer
