// Real node binaries: NODELEAK_TEST_NODES is "18=/path/to/node 20=/path ...", set by ./test.
#include <gelf.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "symbolizer/elf_file.h"
#include "symbolizer/names.h"
#include "symbolizer/symbol_table.h"
#include "symbolizer/symbolizer.h"

namespace nodeleak::symbolizer {
namespace {

struct NodeBinary {
  std::string major;
  std::string path;
};

std::vector<NodeBinary> NodeBinaries() {
  std::vector<NodeBinary> binaries;
  const char* list = getenv("NODELEAK_TEST_NODES");
  for (absl::string_view item : absl::StrSplit(list == nullptr ? "" : list, ' ', absl::SkipEmpty())) {
    std::pair<std::string, std::string> pair = absl::StrSplit(item, absl::MaxSplits('=', 1));
    binaries.push_back({pair.first, pair.second});
  }
  return binaries;
}

// The address of a symbol, found by an independent way: one pass over the whole table by name.
uint64_t AddressOf(const ElfFile& file, const std::string& name) {
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(file.elf(), section)) != nullptr;) {
    GElf_Shdr header = {};
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_SYMTAB) continue;
    Elf_Data* data = elf_getdata(section, nullptr);
    GElf_Sym symbol = {};
    for (int i = 0; gelf_getsym(data, i, &symbol) != nullptr; ++i) {
      const char* found = elf_strptr(file.elf(), header.sh_link, symbol.st_name);
      if (symbol.st_shndx != SHN_UNDEF && found != nullptr && name == found) return symbol.st_value;
    }
  }
  return 0;
}

class SymbolizerNodeTest : public testing::TestWithParam<NodeBinary> {};

TEST_P(SymbolizerNodeTest, NamesOfNodeAndV8) {
  auto file = ElfFile::Open(GetParam().path, "");
  ASSERT_TRUE(file.ok()) << file.status();
  ModuleRef module = {.path = GetParam().path, .build_id = (*file)->build_id()};
  Symbolizer symbolizer;
  struct Expected {
    const char* linkage_name;
    const char* function;
  };
  constexpr Expected kExpected[] = {
      {"_ZN4node6Buffer3NewEPN2v87IsolateEm", "node::Buffer::New"},
      {"_ZN2v811ArrayBuffer3NewEPNS_7IsolateEm", "v8::ArrayBuffer::New"},
      {"_ZN4node5StartEiPPc", "node::Start"},
      {"Builtins_CallFunction_ReceiverIsAny", "Builtins_CallFunction_ReceiverIsAny"},
      {"uv_run", "uv_run"},
      {"main", "main"},
  };
  int found = 0;
  for (const Expected& expected : kExpected) {
    const uint64_t start = AddressOf(**file, expected.linkage_name);
    if (start == 0) continue;  // an overload that this major does not have
    ++found;
    auto frames = symbolizer.Symbolize(module, start + 5);
    ASSERT_TRUE(frames.ok()) << frames.status();
    EXPECT_EQ(ShortFunctionName(frames->back().function), expected.function);
    EXPECT_EQ(frames->back().offset, 5u);
    EXPECT_FALSE(frames->back().inlined);
  }
  EXPECT_GE(found, 5);
  const ModuleInfo& info = symbolizer.Describe(module);
  EXPECT_EQ(info.state, ModuleState::kVerified);
  EXPECT_TRUE(info.has_symbols);
  EXPECT_EQ(info.why, "");
}

TEST_P(SymbolizerNodeTest, OpensFast) {
  Symbolizer symbolizer({.debug_directories = {}});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(symbolizer.Describe({.path = GetParam().path}).has_symbols);
  // Measured: 0.04 to 0.1 s. The bound is loose for loaded machines and sanitizers.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(4));
}

// Every function of the table is found again at its first and last byte, under one of its own names.
TEST_P(SymbolizerNodeTest, FindsEveryFunctionAgain) {
  auto file = ElfFile::Open(GetParam().path, "");
  ASSERT_TRUE(file.ok()) << file.status();
  SymbolTable table;
  ASSERT_GT(table.Add((*file)->elf(), SHT_SYMTAB), 50'000u);
  table.Order();
  size_t wrong = 0;
  size_t checked = 0;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn((*file)->elf(), section)) != nullptr;) {
    GElf_Shdr header = {};
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_SYMTAB) continue;
    Elf_Data* data = elf_getdata(section, nullptr);
    GElf_Sym symbol = {};
    for (int i = 0; gelf_getsym(data, i, &symbol) != nullptr; i += 7) {
      if (GELF_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_size == 0 || symbol.st_shndx == SHN_UNDEF) continue;
      ++checked;
      std::optional<Symbol> first = table.Find(symbol.st_value);
      std::optional<Symbol> last = table.Find(symbol.st_value + symbol.st_size - 1);
      if (!first || first->start != symbol.st_value || !last) ++wrong;
    }
  }
  EXPECT_GT(checked, 10'000u);
  EXPECT_EQ(wrong, 0u);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SymbolizerNodeTest);
INSTANTIATE_TEST_SUITE_P(Majors, SymbolizerNodeTest, testing::ValuesIn(NodeBinaries()),
                         [](const auto& parameter) { return parameter.param.major; });

}  // namespace
}  // namespace nodeleak::symbolizer
