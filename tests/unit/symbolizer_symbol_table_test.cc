#include <gelf.h>

#include <string>

#include "gtest/gtest.h"
#include "symbolizer/symbol_table.h"

namespace nodeleak::symbolizer {
namespace {

constexpr uint8_t kGlobal = GELF_ST_INFO(STB_GLOBAL, STT_FUNC);
constexpr uint8_t kWeak = GELF_ST_INFO(STB_WEAK, STT_FUNC);
constexpr uint8_t kLocal = GELF_ST_INFO(STB_LOCAL, STT_FUNC);
constexpr uint8_t kGlobalLabel = GELF_ST_INFO(STB_GLOBAL, STT_NOTYPE);
constexpr uint8_t kObject = GELF_ST_INFO(STB_GLOBAL, STT_OBJECT);

std::string NameAt(const SymbolTable& table, uint64_t address) {
  std::optional<Symbol> symbol = table.Find(address);
  return symbol ? symbol->name : "(none)";
}

TEST(SymbolTable, CoversFromTheFirstToTheLastByte) {
  SymbolTable table;
  table.AddNamed("b", 0x2000, 0x31, kGlobal);
  table.AddNamed("a", 0x1000, 0x13, kGlobal);
  table.Order();
  EXPECT_EQ(NameAt(table, 0xfff), "(none)");
  EXPECT_EQ(NameAt(table, 0x1000), "a");
  EXPECT_EQ(NameAt(table, 0x1012), "a");
  EXPECT_EQ(NameAt(table, 0x1013), "(none)");
  EXPECT_EQ(NameAt(table, 0x2030), "b");
  EXPECT_EQ(NameAt(table, 0x2031), "(none)");
  EXPECT_EQ(table.Find(0x1012)->start, 0x1000u);
}

TEST(SymbolTable, InnermostOfNestedFunctions) {
  SymbolTable table;
  table.AddNamed("outer", 0x1000, 0x100, kGlobal);
  table.AddNamed("inner", 0x1040, 0x20, kLocal);
  table.AddNamed("same_start", 0x1000, 0x10, kLocal);
  table.Order();
  EXPECT_EQ(NameAt(table, 0x1008), "same_start");
  EXPECT_EQ(NameAt(table, 0x1010), "outer");
  EXPECT_EQ(NameAt(table, 0x1040), "inner");
  EXPECT_EQ(NameAt(table, 0x1060), "outer");
  EXPECT_EQ(NameAt(table, 0x1100), "(none)");
}

TEST(SymbolTable, OverlapThatIsNoNesting) {
  SymbolTable table;
  table.AddNamed("first", 0x1000, 0x20, kGlobal);
  table.AddNamed("second", 0x1010, 0x30, kGlobal);
  table.Order();
  EXPECT_EQ(NameAt(table, 0x100f), "first");
  EXPECT_EQ(NameAt(table, 0x1010), "second");
  EXPECT_EQ(NameAt(table, 0x103f), "second");
  EXPECT_EQ(NameAt(table, 0x1040), "(none)");
}

TEST(SymbolTable, ThePublicNameOfAliases) {
  SymbolTable table;
  table.AddNamed("__GI___libc_malloc", 0x1000, 0x20, kLocal);
  table.AddNamed("__libc_malloc", 0x1000, 0x20, kGlobal);
  table.AddNamed("malloc@@GLIBC_2.2.5", 0x1000, 0x20, kGlobal);
  table.AddNamed("a", 0x1000, 0x20, kWeak);
  table.AddNamed("blob", 0x1000, 0x20, kGlobalLabel);
  table.Order();
  EXPECT_EQ(NameAt(table, 0x1005), "malloc");
}

TEST(SymbolTable, OnlyCodeWithASaneExtent) {
  SymbolTable table;
  table.AddNamed("variable", 0x1000, 0x20, kObject);
  table.AddNamed("wraps", 0x2000, UINT64_MAX, kGlobal);
  table.AddNamed("", 0x3000, 0x20, kGlobal);
  table.Order();
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(NameAt(table, 0x1000), "(none)");
  EXPECT_EQ(NameAt(table, UINT64_MAX), "(none)");
}

TEST(SymbolTable, ThousandsOfNestedFunctionsStayFast) {
  SymbolTable table;
  constexpr uint64_t kCount = 100'003;
  for (uint64_t i = 0; i < kCount; ++i) table.AddNamed("f", 0x1000 + i, 2 * (kCount - i), kGlobal);
  table.Order();
  for (uint64_t address = 0x1000; address < 0x1000 + 2 * kCount; ++address) ASSERT_TRUE(table.Find(address)) << address;
}

}  // namespace
}  // namespace nodeleak::symbolizer
