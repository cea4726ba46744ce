// The pure parts of preload/v8: position tables, line ends, UTF-8, URLs.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "preload/v8/code_ranges.h"
#include "preload/v8/script_lines.h"
#include "preload/v8/source_positions.h"
#include "preload/v8/strings.h"
#include "preload/v8/wasm_module.h"

namespace nodeleak::preload::v8 {
namespace {

void AppendUnsigned(std::vector<uint8_t>* bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes->push_back(static_cast<uint8_t>(value | 0x80));
  bytes->push_back(static_cast<uint8_t>(value));
}
void AppendSigned(std::vector<uint8_t>* bytes, int64_t value) {
  AppendUnsigned(bytes, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}
ByteStream Stream(const std::vector<uint8_t>& bytes) {
  return ByteStream(reinterpret_cast<uint64_t>(bytes.data()), bytes.size());
}
// (offset, position) pairs in the encoding of V8 up to 13 or of 14.
std::vector<uint8_t> Table(PositionEncoding encoding, const std::vector<std::pair<int64_t, int64_t>>& entries) {
  std::vector<uint8_t> bytes;
  int64_t offset = -1, raw = 0;
  bool statement = true;
  for (auto [at, position] : entries) {
    int64_t delta = at - offset, new_raw = (position + 1) << 1;
    if (encoding == PositionEncoding::kFlagBits) {
      AppendUnsigned(&bytes, static_cast<uint64_t>(delta) << 2 | (statement ? 1 : 0));
    } else {
      AppendSigned(&bytes, statement ? delta : -delta - 1);
    }
    AppendSigned(&bytes, new_raw - raw);
    offset = at;
    raw = new_raw;
    statement = !statement;
  }
  return bytes;
}

class PositionTable : public testing::TestWithParam<PositionEncoding> {};

TEST_P(PositionTable, FindsTheLastEntryAtOrBeforeTheOffset) {
  auto bytes = Table(GetParam(), {{3, 1999}, {17, 50021}, {4007, 12}});
  SourcePosition position;
  EXPECT_FALSE(FindPosition(Stream(bytes), GetParam(), 2, &position));
  ASSERT_TRUE(FindPosition(Stream(bytes), GetParam(), 3, &position));
  EXPECT_EQ(position.offset(), 1999);
  ASSERT_TRUE(FindPosition(Stream(bytes), GetParam(), 4006, &position));
  EXPECT_EQ(position.offset(), 50021);
  EXPECT_EQ(position.inlining(), -1);
  ASSERT_TRUE(FindPosition(Stream(bytes), GetParam(), 1 << 20, &position));
  EXPECT_EQ(position.offset(), 12);
}

TEST_P(PositionTable, ATableCutShortYieldsWhatIsWhole) {
  auto bytes = Table(GetParam(), {{3, 1999}, {17, 50021}});
  bytes.pop_back();
  SourcePosition position;
  ASSERT_TRUE(FindPosition(Stream(bytes), GetParam(), 100, &position));
  EXPECT_EQ(position.offset(), 1999);
}

INSTANTIATE_TEST_SUITE_P(Encodings, PositionTable,
                         testing::Values(PositionEncoding::kSignedOffset, PositionEncoding::kFlagBits));

TEST(SourcePosition, KeepsTheInlining) {
  SourcePosition position = {(uint64_t{7} + 1) << 31 | (uint64_t{1999} + 1) << 1};
  EXPECT_EQ(position.offset(), 1999);
  EXPECT_EQ(position.inlining(), 7);
  EXPECT_FALSE(position.external());
}

TEST(BaselineTable, CountsBytecodesBeforeThePc) {
  std::vector<uint8_t> bytes;
  for (uint64_t delta : {40u, 13u, 300u, 7u}) AppendUnsigned(&bytes, delta);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream(bytes), 20), kPrologue);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream(bytes), 40), kPrologue);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream({}), 20), kUnknownBytecode);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream(bytes), 53), 0);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream(bytes), 54), 1);
  EXPECT_EQ(FindBaselineBytecodeIndex(Stream(bytes), 360), 2);
}

// A module with a type section and the names of functions 1 and 300.
std::vector<uint8_t> WasmModule() {
  std::vector<uint8_t> bytes = {0, 'a', 's', 'm', 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0};
  const std::vector<uint8_t> names = {4, 'n', 'a', 'm', 'e',  0, 2, 1,   'm', 1,   14,  2,  1,
                                      3, 'o', 'n', 'e', 0xac, 2, 5, 't', 'h', 'r', 'e', 'e'};
  bytes.push_back(0);  // a custom section
  AppendUnsigned(&bytes, names.size());
  bytes.insert(bytes.end(), names.begin(), names.end());
  return bytes;
}

std::string NameIn(const std::vector<uint8_t>& module, int32_t index) {
  WasmName name;
  if (!FindWasmName({reinterpret_cast<uint64_t>(module.data()), module.size()}, index, &name)) return "";
  return {reinterpret_cast<const char*>(name.address), name.bytes};
}

TEST(WasmNames, AreFoundByIndex) {
  const std::vector<uint8_t> module = WasmModule();
  EXPECT_EQ(NameIn(module, 1), "one");
  EXPECT_EQ(NameIn(module, 300), "three");
  EXPECT_EQ(NameIn(module, 0), "");
  EXPECT_EQ(NameIn(module, 2), "");
  EXPECT_EQ(NameIn(module, 301), "");
}

TEST(WasmNames, ADamagedModuleHasNone) {
  const std::vector<uint8_t> module = WasmModule();
  for (size_t bytes = 0; bytes < module.size(); ++bytes) {
    EXPECT_EQ(NameIn({module.begin(), module.begin() + static_cast<long>(bytes)}, 300), "") << bytes;
  }
  std::vector<uint8_t> wild = module;
  wild[29] = 0x7f;  // the length of the first name
  EXPECT_EQ(NameIn(wild, 300), "");
}

// Imports of every kind, two of them functions (0 and 1), and bodies of 1, 200 and 2 bytes (functions 2 to 4).
std::vector<uint8_t> WasmModuleWithCode() {
  std::vector<uint8_t> bytes = {0, 'a', 's', 'm', 1, 0, 0, 0};
  const std::vector<uint8_t> imports = {7,                                 // so many
                                        1, 'e', 1, 'f', 0, 3,              // function of type 3
                                        1, 'e', 1, 't', 1, 0x70, 1, 2, 9,  // table of funcref, 2 to 9
                                        1, 'e', 1, 'r', 1, 0x63, 5, 0, 2,  // table of references to type 5, from 2
                                        1, 'e', 1, 'm', 2, 0,    1,        // memory from 1
                                        1, 'e', 1, 'g', 3, 0x7f, 1,        // global i32
                                        1, 'e', 1, 'x', 4, 0,    2,        // tag of type 2
                                        1, 'e', 1, 'h', 0, 0x80, 1};       // function of type 128
  std::vector<uint8_t> code = {3, 1, 0, 0xc8, 1};
  code.insert(code.end(), 200, 1);
  code.insert(code.end(), {2, 0, 0x0b});
  for (const auto& [id, section] : {std::pair{2, imports}, std::pair{10, code}}) {
    bytes.push_back(static_cast<uint8_t>(id));
    AppendUnsigned(&bytes, section.size());
    bytes.insert(bytes.end(), section.begin(), section.end());
  }
  return bytes;
}

// Bytes from the body to the module's end; 0: no body.
uint64_t BodyFromEnd(const std::vector<uint8_t>& module, int32_t index) {
  uint64_t offset = 0;
  const WasmBytes bytes = {reinterpret_cast<uint64_t>(module.data()), module.size()};
  return FindWasmBody(bytes, index, &offset) ? module.size() - offset : 0;
}

TEST(WasmBodies, AreFoundByIndexBehindTheImports) {
  const std::vector<uint8_t> module = WasmModuleWithCode();
  for (int32_t index : {-1, 0, 1, 5, 300}) EXPECT_EQ(BodyFromEnd(module, index), 0u) << index;
  EXPECT_EQ(BodyFromEnd(module, 2), 1u + 2 + 200 + 1 + 2);
  EXPECT_EQ(BodyFromEnd(module, 3), 200u + 1 + 2);
  EXPECT_EQ(BodyFromEnd(module, 4), 2u);
}

TEST(WasmBodies, ADamagedModuleHasNone) {
  const std::vector<uint8_t> module = WasmModuleWithCode();
  for (size_t bytes = 0; bytes < module.size(); ++bytes) {
    EXPECT_EQ(BodyFromEnd({module.begin(), module.begin() + static_cast<long>(bytes)}, 4), 0u) << bytes;
  }
  std::vector<uint8_t> unknown_import = module;
  unknown_import[15] = 9;  // the kind of the first one
  EXPECT_EQ(BodyFromEnd(unknown_import, 4), 0u);
}

std::vector<uint32_t> LineEnds(const std::vector<std::u16string>& pieces) {
  LineEndCollector lines;
  for (const auto& piece : pieces) lines.Take({piece.data(), static_cast<uint32_t>(piece.size()), false});
  lines.Finish();
  return std::vector<uint32_t>(lines.ends(), lines.ends() + lines.count());
}

TEST(LineEnds, CountsAsV8Does) {
  EXPECT_EQ(LineEnds({u"a\nb\r\nc\rd\u2028e\u2029"}), (std::vector<uint32_t>{1, 4, 6, 8, 10}));
}
TEST(LineEnds, AReturnAndItsNewlineMayComeInTwoPieces) {
  EXPECT_EQ(LineEnds({u"a\r", u"\nb\r", u"c\r"}), (std::vector<uint32_t>{2, 4, 6}));
}
TEST(LineEnds, OfCharactersOfOneByteAsOfThoseOfTwo) {
  std::string narrow;
  for (uint32_t i = 0; i < 3000; ++i) narrow += "\n\r\r\nabcdefghijklmnopqr"[i * i % 41 % 22];
  narrow += std::string(100, 'x') + "\r\n" + std::string(15, 'y') + '\n';
  const std::u16string wide(narrow.begin(), narrow.end());
  for (size_t split = 0; split < narrow.size(); split += 7) {
    LineEndCollector lines;
    lines.Take({narrow.data(), static_cast<uint32_t>(split), true});
    lines.Take({narrow.data() + split, static_cast<uint32_t>(narrow.size() - split), true});
    lines.Finish();
    ASSERT_EQ(std::vector<uint32_t>(lines.ends(), lines.ends() + lines.count()), LineEnds({wide})) << split;
  }
}
TEST(LineEnds, GrowsPastItsFirstBlock) { EXPECT_EQ(LineEnds({std::u16string(5003, u'\n')}).size(), 5003u); }
TEST(LineEnds, FindsLineAndColumn) {
  const uint32_t ends[] = {4, 9, 10};
  EXPECT_EQ(FindInLineEnds(ends, 3, 0).line, 0u);
  EXPECT_EQ(FindInLineEnds(ends, 3, 4).column, 4u);
  EXPECT_EQ(FindInLineEnds(ends, 3, 5).line, 1u);
  EXPECT_EQ(FindInLineEnds(ends, 3, 5).column, 0u);
  EXPECT_EQ(FindInLineEnds(ends, 3, 19).line, 3u);
  EXPECT_EQ(FindInLineEnds(ends, 3, 19).column, 8u);
}

std::string ToUtf8(const std::vector<std::u16string>& pieces, size_t capacity = 100) {
  std::string out(capacity, '#');
  Utf8Writer writer(out.data(), capacity);
  for (const auto& piece : pieces) writer.Take({piece.data(), static_cast<uint32_t>(piece.size()), false});
  out.resize(writer.Finish());
  return out;
}
TEST(Utf8Writer, JoinsSurrogatesAcrossPieces) { EXPECT_EQ(ToUtf8({u"é\xd83d", u"\xde00!"}), "é😀!"); }
TEST(Utf8Writer, ReplacesUnpairedSurrogates) {
  EXPECT_EQ(ToUtf8({u"\xd83d"
                    u"a\xde00",
                    u"\xd83d"}),
            "\uFFFD"
            "a\uFFFD\uFFFD");
}
TEST(Utf8Writer, NeverSplitsACharacterAtTheEnd) { EXPECT_EQ(ToUtf8({u"ab日本"}, 6), "ab日"); }

std::string Path(std::string url) {
  url.resize(UrlToPath(url.data(), url.size()));
  return url;
}
TEST(UrlToPath, TurnsFileUrlsIntoPaths) {
  EXPECT_EQ(Path("file:///srv/a%20b/%C3%A9%23.mjs"), "/srv/a b/é#.mjs");
  EXPECT_EQ(Path("file:///srv/a.mjs?version=2#x"), "/srv/a.mjs");
  EXPECT_EQ(Path("file:///srv/100%"), "/srv/100%");
  EXPECT_EQ(Path("file:///srv/%zz"), "/srv/%zz");
}
TEST(UrlToPath, LeavesTheRestAlone) {
  EXPECT_EQ(Path("node:internal/timers"), "node:internal/timers");
  EXPECT_EQ(Path("/srv/a%20b.js"), "/srv/a%20b.js");
  EXPECT_EQ(Path("file://host/x"), "file://host/x");
}

TEST(ExecutableRanges, TellsJitMemoryAndCopiesOfTheBuiltinsFromOtherCode) {
  const char maps[] =
      "00400000-00500000 r--p 00000000 08:01 77                         /opt/node\n"
      "00500000-00900000 r-xp 00100000 08:01 77                         /opt/node\n"
      "7f0000000000-7f0000001000 ---p 00000000 00:00 0 \n"
      "7f0000001000-7f0000003000 rwxp 00000000 00:00 0 \n"
      "7f0000003000-7f0000005000 ---p 00000000 00:00 0 \n"
      "7f0000005000-7f0000006000 r-xp 00000000 00:00 0 \n"
      "7f0000006000-7f0000008000 ---p 00000000 00:00 0 \n"
      "7f0000010000-7f0000020000 r-xp 00200000 08:01 77                 /opt/node\n"
      "7f0000030000-7f0000040000 r-xp 00000000 08:01 78                 /lib/libc.so.6\n"
      "7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                  [vdso]\n";
  ExecutableRange ranges[16];
  uint32_t count = ParseExecutableRanges(maps, 0x500000, ranges, 16);
  ASSERT_EQ(count, 5u);
  EXPECT_EQ(ranges[0].kind, CodeKind::kNotV8);
  EXPECT_EQ(ranges[1].kind, CodeKind::kJit);
  EXPECT_EQ(ranges[1].start, 0x7f0000001000u);  // an addon may be put where the rest is now
  EXPECT_EQ(ranges[1].end, 0x7f0000006000u);
  EXPECT_EQ(ranges[2].kind, CodeKind::kBuiltins);
  EXPECT_EQ(ranges[3].kind, CodeKind::kNotV8);
  EXPECT_EQ(ranges[4].kind, CodeKind::kNotV8);
}

}  // namespace
}  // namespace nodeleak::preload::v8
