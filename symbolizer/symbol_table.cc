#include "symbolizer/symbol_table.h"

#include <gelf.h>

#include <algorithm>
#include <tuple>

namespace nodeleak::symbolizer {
namespace {

// Aliases of one function are compared by name; a file with more of them than this is not worth the time.
constexpr size_t kMaxAliases = 64;

struct CodeSection {
  uint64_t start = 0;
  uint64_t end = 0;  // start == end: not code
};

std::vector<CodeSection> ReadCodeSections(Elf* elf) {
  std::vector<CodeSection> sections;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    sections.resize(elf_ndxscn(section) + 1);
    GElf_Shdr header = {};
    if (gelf_getshdr(section, &header) == nullptr || (header.sh_flags & SHF_EXECINSTR) == 0) continue;
    if (header.sh_addr + header.sh_size < header.sh_addr) continue;
    sections.back() = {header.sh_addr, header.sh_addr + header.sh_size};
  }
  return sections;
}

bool IsCodeType(unsigned type) { return type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE; }

uint8_t RankOf(uint8_t info) {
  // The name people know: a function before a label, the exported name before the file's own alias.
  const bool label = GELF_ST_TYPE(info) == STT_NOTYPE;
  const unsigned binding = GELF_ST_BIND(info);
  const int by_binding = binding == STB_GLOBAL ? 0 : binding == STB_WEAK ? 1 : 2;
  return static_cast<uint8_t>((label ? 3 : 0) + by_binding);
}

std::string_view WithoutVersion(std::string_view name) {
  size_t at = name.find('@');
  return at == std::string_view::npos || at == 0 ? name : name.substr(0, at);
}

// Among aliases of one rank (malloc, __libc_malloc, __malloc): no leading underscores, then the shorter.
auto NameOrder(std::string_view name) {
  const bool mangled = name.starts_with("_Z") || name.starts_with("_R");
  const size_t underscores = mangled ? 0 : std::min(name.find_first_not_of('_'), name.size());
  return std::make_tuple(underscores, name.size(), name);
}

}  // namespace

size_t SymbolTable::Add(Elf* elf, uint32_t section_type) {
  const size_t before = entries_.size() + labels_.size();
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header = {};
    if (gelf_getshdr(section, &header) != nullptr && header.sh_type == section_type) AddSection(elf, section);
  }
  return entries_.size() + labels_.size() - before;
}

void SymbolTable::AddSection(Elf* elf, Elf_Scn* section) {
  GElf_Shdr header = {};
  if (gelf_getshdr(section, &header) == nullptr || header.sh_entsize == 0 || sources_.size() >= UINT16_MAX) return;
  Elf_Data* data = elf_getdata(section, nullptr);
  if (data == nullptr || data->d_buf == nullptr) return;
  // Reads the names now: later the file may have other contents.
  if (elf_rawdata(elf_getscn(elf, header.sh_link), nullptr) == nullptr) return;
  // Between exported functions lie others that .dynsym does not tell: there a label says nothing of what follows.
  const bool use_labels = header.sh_type == SHT_SYMTAB;
  const std::vector<CodeSection> code = ReadCodeSections(elf);
  const auto source = static_cast<uint16_t>(sources_.size());
  sources_.push_back({elf, header.sh_link});
  const size_t symbol_bytes = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);
  const size_t count = symbol_bytes == 0 ? 0 : std::min<size_t>(data->d_size / symbol_bytes, INT32_MAX);
  for (size_t i = 0; i < count; ++i) {
    GElf_Sym symbol = {};
    if (gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr) break;
    if (!IsCodeType(GELF_ST_TYPE(symbol.st_info)) || symbol.st_shndx >= code.size() || symbol.st_name == 0) continue;
    if (symbol.st_size == 0 && !use_labels) continue;
    const CodeSection& in = code[symbol.st_shndx];
    if (symbol.st_value < in.start || symbol.st_value >= in.end) continue;
    const uint64_t end = symbol.st_value + std::min(symbol.st_size, in.end - symbol.st_value);
    const Entry entry = {symbol.st_value, symbol.st_size == 0 ? in.end : end, symbol.st_name, source,
                         RankOf(symbol.st_info)};
    (symbol.st_size == 0 ? labels_ : entries_).push_back(entry);
  }
}

void SymbolTable::AddNamed(std::string_view name, uint64_t start, uint64_t size, uint8_t info) {
  if (!IsCodeType(GELF_ST_TYPE(info)) || size == 0 || start + size < start || name.empty()) return;
  if (own_names_.size() + name.size() >= UINT32_MAX || sources_.size() >= UINT16_MAX) return;
  if (own_names_.empty()) sources_.push_back({nullptr, 0});
  // Called for one run of names: the source is the last one.
  entries_.push_back({start, start + size, static_cast<uint32_t>(own_names_.size()),
                      static_cast<uint16_t>(sources_.size() - 1), RankOf(info)});
  own_names_.append(name).push_back('\0');
}

void SymbolTable::Order() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    // Enclosing functions before enclosed ones.
    return std::tie(a.start, b.end, a.rank) < std::tie(b.start, a.end, b.rank);
  });
  std::sort(labels_.begin(), labels_.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.start, a.rank) < std::tie(b.start, b.rank); });
  BuildSegments();
}

// Sweeps once over the functions and flattens those that overlap, so that a lookup is one binary search whatever the
// file says.
void SymbolTable::BuildSegments() {
  segments_.clear();
  segments_.reserve(entries_.size() + entries_.size() / 2);
  std::vector<uint32_t> open;  // functions that cover the position of the sweep, innermost last
  auto close_until = [&](uint64_t limit) {
    while (!open.empty() && entries_[open.back()].end <= limit) {
      const uint64_t end = entries_[open.back()].end;
      while (!open.empty() && entries_[open.back()].end <= end) open.pop_back();
      Emit(end, open.empty() ? kNone : open.back());
    }
  };
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    close_until(entry.start);
    if (!open.empty() && entries_[open.back()].start == entry.start && entries_[open.back()].end == entry.end) {
      continue;  // an alias: BestOf looks at all of them
    }
    Emit(entry.start, i);
    open.push_back(i);
  }
  close_until(UINT64_MAX);
}

void SymbolTable::Emit(uint64_t start, uint32_t entry) {
  if (!segments_.empty() && segments_.back().start == start) {
    segments_.back().entry = entry;
  } else {
    segments_.push_back({start, entry});
  }
}

std::string SymbolTable::NameOf(const Entry& entry) const {
  const Source& source = sources_[entry.source];
  const char* name = source.elf == nullptr ? own_names_.c_str() + entry.name
                                           : elf_strptr(source.elf, source.string_section, entry.name);
  return name == nullptr ? "" : std::string(WithoutVersion(name));
}

std::optional<Symbol> SymbolTable::BestOf(const std::vector<Entry>& entries, size_t first) const {
  std::string best;
  for (size_t i = first; i < entries.size() && i < first + kMaxAliases; ++i) {
    const Entry& entry = entries[i];
    if (entry.start != entries[first].start || entry.end != entries[first].end) break;
    if (!best.empty() && entry.rank != entries[first].rank) break;  // sorted by rank
    std::string name = NameOf(entry);
    if (!name.empty() && (best.empty() || NameOrder(name) < NameOrder(best))) best = std::move(name);
  }
  if (best.empty()) return std::nullopt;
  return Symbol{std::move(best), entries[first].start};
}

std::optional<Symbol> SymbolTable::FindLabel(uint64_t address, uint64_t not_before) const {
  auto after = std::upper_bound(labels_.begin(), labels_.end(), address,
                                [](uint64_t value, const Entry& entry) { return value < entry.start; });
  if (after == labels_.begin()) return std::nullopt;
  auto label = std::prev(after);
  if (label->start < not_before || address >= label->end) return std::nullopt;
  label = std::lower_bound(labels_.begin(), labels_.end(), label->start,
                           [](const Entry& entry, uint64_t value) { return entry.start < value; });
  return BestOf(labels_, static_cast<size_t>(label - labels_.begin()));
}

std::optional<Symbol> SymbolTable::Find(uint64_t address) const {
  auto after = std::upper_bound(segments_.begin(), segments_.end(), address,
                                [](uint64_t value, const Segment& segment) { return value < segment.start; });
  if (after == segments_.begin()) return FindLabel(address, 0);
  const Segment& segment = *std::prev(after);
  if (segment.entry == kNone) return FindLabel(address, segment.start);
  return BestOf(entries_, segment.entry);
}

}  // namespace nodeleak::symbolizer
