// Lines, inlines and separate debug files, on a library that the test builds from tests/fixtures/symbolizer/inlines.cc.
#include <fcntl.h>
#include <gelf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "symbolizer/elf_file.h"
#include "symbolizer/names.h"
#include "symbolizer/symbolizer.h"

namespace nodeleak::symbolizer {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kSource = fs::path(__FILE__).parent_path().parent_path() / "fixtures/symbolizer/inlines.cc";

bool Shell(const std::string& command) {
  return std::system(absl::StrCat("( ", command, " ) >/dev/null 2>&1").c_str()) == 0;
}

uint32_t LineOfMark(const std::string& mark) {
  std::ifstream source(kSource);
  std::string line;
  for (uint32_t number = 1; std::getline(source, line); ++number) {
    if (line.ends_with("mark:" + mark)) return number;
  }
  ADD_FAILURE() << "no such mark: " << mark;
  return 0;
}

// "function:line", with "(inlined)" after inlined ones, innermost first.
std::vector<std::string> Describe(const std::vector<SymbolFrame>& frames) {
  std::vector<std::string> lines;
  for (const SymbolFrame& frame : frames) {
    lines.push_back(
        absl::StrCat(ShortFunctionName(frame.function), ":", frame.line, frame.inlined ? " (inlined)" : ""));
  }
  return lines;
}

class SymbolizerDebugTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::path(testing::TempDir()) / absl::StrCat("nodeleak-debug-", getpid());
    fs::create_directories(directory_);
    library_ = (directory_ / "libinlines.so").string();
    // Paths without blanks: testing::TempDir and the source tree.
    if (!Shell("command -v c++ && command -v objcopy")) GTEST_SKIP() << "no compiler";
    ASSERT_TRUE(
        Shell(absl::StrCat("c++ -std=c++20 -g -O2 -fPIC -shared -Wl,--build-id -o ", library_, " ", kSource.string())));
  }
  void TearDown() override { fs::remove_all(directory_); }

  ModuleRef Module() const {
    auto file = ElfFile::Open(library_, "");
    EXPECT_TRUE(file.ok()) << file.status();
    return {.path = library_, .build_id = file.ok() ? (*file)->build_id() : BuildId()};
  }

  // The frames at the first address of the whole module, in order, whose innermost frame stands at this line.
  static std::vector<SymbolFrame> FramesAtLine(Symbolizer& symbolizer, const ModuleRef& module, uint32_t line) {
    for (uint64_t address = 0x1000; address < 0x2000; ++address) {
      auto frames = symbolizer.Symbolize(module, address);
      if (frames.ok() && frames->front().line == line) return *frames;
    }
    return {};
  }

  void ExpectInlines(Symbolizer& symbolizer, const ModuleRef& module) {
    std::vector<SymbolFrame> frames = FramesAtLine(symbolizer, module, LineOfMark("malloc"));
    EXPECT_THAT(Describe(frames),
                ElementsAre(absl::StrCat("fixture::Innermost:", LineOfMark("malloc"), " (inlined)"),
                            absl::StrCat("fixture::Middle:", LineOfMark("call-innermost"), " (inlined)"),
                            absl::StrCat("fixture::Outer::Allocate:", LineOfMark("call-middle"))));
    for (const SymbolFrame& frame : frames) {
      EXPECT_EQ(frame.file, kSource.string());
      EXPECT_GT(frame.column, 0u);
    }
    frames = FramesAtLine(symbolizer, module, LineOfMark("local-malloc"));
    EXPECT_THAT(Describe(frames), ElementsAre(absl::StrCat("fixture::LocalFunction:", LineOfMark("local-malloc"))));
  }

  fs::path directory_;
  std::string library_;
};

TEST_F(SymbolizerDebugTest, InlinedFunctionsInnermostFirst) {
  Symbolizer symbolizer({.debug_directories = {}});
  ModuleRef module = Module();
  ExpectInlines(symbolizer, module);
  EXPECT_TRUE(symbolizer.Describe(module).has_lines);
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kVerified);
}

TEST_F(SymbolizerDebugTest, AnInlinedLambdaIsCalledOne) {
  Symbolizer symbolizer({.debug_directories = {}});
  const uint32_t line = LineOfMark("lambda-malloc");
  EXPECT_THAT(Describe(FramesAtLine(symbolizer, Module(), line)),
              ElementsAre(testing::AnyOf(absl::StrCat("lambda:", line, " (inlined)"),
                                         absl::StrCat("fixture::AroundLambda::lambda:", line, " (inlined)")),
                          absl::StrCat("fixture::AroundLambda:", LineOfMark("call-lambda"))));
}

TEST_F(SymbolizerDebugTest, WithoutLinesOnlyTheFunctionOfTheSymbolTable) {
  Symbolizer with_lines({.debug_directories = {}});
  Symbolizer without_lines({.debug_directories = {}, .lines = false});
  ModuleRef module = Module();
  for (uint64_t address = 0x1000; address < 0x2000; ++address) {
    auto full = with_lines.Symbolize(module, address);
    auto brief = without_lines.Symbolize(module, address);
    if (!full.ok() || full->back().function != "fixture::Outer::Allocate(unsigned long) const") continue;
    ASSERT_TRUE(brief.ok());
    EXPECT_THAT(Describe(*brief), ElementsAre("fixture::Outer::Allocate:0"));
    EXPECT_EQ(brief->back().offset, full->back().offset);
    return;
  }
  FAIL() << "fixture::Outer::Allocate is nowhere";
}

TEST_F(SymbolizerDebugTest, DebugFileByBuildId) {
  ModuleRef module = Module();
  const std::string hex = absl::BytesToHexString(std::string(module.build_id.begin(), module.build_id.end()));
  const fs::path debug_file = directory_ / "debug/.build-id" / hex.substr(0, 2) / (hex.substr(2) + ".debug");
  fs::create_directories(debug_file.parent_path());
  ASSERT_TRUE(
      Shell(absl::StrCat("objcopy --only-keep-debug ", library_, " ", debug_file.string(), " && strip -s ", library_)));
  Symbolizer symbolizer({.debug_directories = {(directory_ / "debug").string()}});
  ExpectInlines(symbolizer, module);
  EXPECT_EQ(symbolizer.Describe(module).debug_file, debug_file.string());
  EXPECT_EQ(symbolizer.Describe(module).why, "");
}

TEST_F(SymbolizerDebugTest, DebugFileByLink) {
  ModuleRef module = Module();
  fs::create_directories(directory_ / ".debug");
  ASSERT_TRUE(
      Shell(absl::StrCat("cd ", directory_.string(),
                         " && objcopy --only-keep-debug libinlines.so .debug/linked.debug && strip -s libinlines.so"
                         " && objcopy --add-gnu-debuglink=.debug/linked.debug libinlines.so")));
  Symbolizer symbolizer({.debug_directories = {}});
  ExpectInlines(symbolizer, module);
  EXPECT_EQ(symbolizer.Describe(module).debug_file, (directory_ / ".debug/linked.debug").string());
}

TEST_F(SymbolizerDebugTest, DebugLinkWithoutBuildIdIsHeldToItsChecksum) {
  ASSERT_TRUE(Shell(absl::StrCat("cd ", directory_.string(),
                                 " && objcopy --remove-section .note.gnu.build-id libinlines.so"
                                 " && objcopy --only-keep-debug libinlines.so linked.debug && strip -s libinlines.so"
                                 " && objcopy --add-gnu-debuglink=linked.debug libinlines.so")));
  ModuleRef module = Module();
  ASSERT_TRUE(module.build_id.empty());
  {
    Symbolizer symbolizer({.debug_directories = {}});
    ExpectInlines(symbolizer, module);
    EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kUnverified);
  }
  std::ofstream(directory_ / "linked.debug", std::ios::app) << 'x';
  Symbolizer symbolizer({.debug_directories = {}});
  EXPECT_EQ(symbolizer.Describe(module).debug_file, "");
  EXPECT_FALSE(symbolizer.Describe(module).has_lines);
}

TEST_F(SymbolizerDebugTest, StrippedLibraryHasItsExportsAndSaysSo) {
  ModuleRef module = Module();
  ASSERT_TRUE(Shell(absl::StrCat("strip -s ", library_)));
  Symbolizer symbolizer({.debug_directories = {}});
  bool found_entry = false;
  for (uint64_t address = 0x1000; address < 0x2000; ++address) {
    auto frames = symbolizer.Symbolize(module, address);
    if (frames.ok() && frames->back().function == "fixture_entry") found_entry = true;
    if (frames.ok()) {
      EXPECT_THAT(frames->back().function, testing::Not(HasSubstr("LocalFunction")));
    }
  }
  EXPECT_TRUE(found_entry);
  EXPECT_FALSE(symbolizer.Describe(module).has_symbols);
  EXPECT_THAT(symbolizer.Describe(module).why, HasSubstr("stripped"));
  // Without a build id both are told, and an address is told what concerns it.
  module.build_id.clear();
  EXPECT_THAT(symbolizer.Describe(module).why, testing::AllOf(HasSubstr("no build id"), HasSubstr("stripped")));
  EXPECT_THAT(std::string(symbolizer.Symbolize(module, 0x9999999).status().message()),
              testing::StartsWith("stripped, exported functions only"));
}

TEST_F(SymbolizerDebugTest, MiniDebugInfo) {
  if (!Shell("command -v xz")) GTEST_SKIP() << "no xz";
  ModuleRef module = Module();
  ASSERT_TRUE(Shell(absl::StrCat("cd ", directory_.string(),
                                 " && objcopy -S --remove-section .gnu_debuglink --remove-section .comment"
                                 " --keep-symbol=_ZN7fixtureL13LocalFunctionEm libinlines.so mini && xz -k mini"
                                 " && strip -s libinlines.so"
                                 " && objcopy --add-section .gnu_debugdata=mini.xz libinlines.so")));
  Symbolizer symbolizer({.debug_directories = {}});
  bool found = false;
  for (uint64_t address = 0x1000; address < 0x2000 && !found; ++address) {
    auto frames = symbolizer.Symbolize(module, address);
    found = frames.ok() && ShortFunctionName(frames->back().function) == "fixture::LocalFunction";
  }
  EXPECT_TRUE(found);
  EXPECT_TRUE(symbolizer.Describe(module).has_symbols);
}

TEST_F(SymbolizerDebugTest, FileThatChangedSinceIsRefused) {
  ModuleRef module = Module();
  ASSERT_TRUE(
      Shell(absl::StrCat("c++ -std=c++20 -O1 -fPIC -shared -Wl,--build-id -o ", library_, " ", kSource.string())));
  Symbolizer symbolizer;
  auto frames = symbolizer.Symbolize(module, 0x1100);
  EXPECT_THAT(std::string(frames.status().message()), HasSubstr("file changed since: build id differs"));
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kRefused);
  // The file as it is now, asked for by its own build id, is another module.
  EXPECT_EQ(symbolizer.Describe(Module()).state, ModuleState::kVerified);
}

TEST_F(SymbolizerDebugTest, FileThatLostItsBuildIdIsRefused) {
  ModuleRef module = Module();
  ASSERT_TRUE(Shell(absl::StrCat("objcopy --remove-section .note.gnu.build-id ", library_)));
  Symbolizer symbolizer;
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kRefused);
}

TEST_F(SymbolizerDebugTest, DeletedFileThatIsBackWithItsBuildIdIsUsed) {
  ModuleRef module = Module();
  module.path += " (deleted)";
  Symbolizer symbolizer;
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kVerified);
  module.build_id.clear();
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kRefused);
}

TEST_F(SymbolizerDebugTest, FileTruncatedWhileOpenStillAnswers) {
  ModuleRef module = Module();
  Symbolizer symbolizer({.debug_directories = {}});
  ASSERT_TRUE(symbolizer.Describe(module).has_lines);
  fs::resize_file(library_, 0);
  ExpectInlines(symbolizer, module);
}

TEST_F(SymbolizerDebugTest, PathsStartAtTheRoot) {
  ModuleRef module = Module();
  module.path = "/libinlines.so";
  module.root = directory_.string();
  Symbolizer symbolizer;
  EXPECT_EQ(symbolizer.Describe(module).state, ModuleState::kVerified);
}

TEST_F(SymbolizerDebugTest, BatchAnswersInOrder) {
  ModuleRef module = Module();
  Symbolizer symbolizer;
  std::vector<uint64_t> addresses;
  for (uint64_t address = 0x1fff; address > 0x1000; address -= 7) addresses.push_back(address);
  addresses.push_back(0);
  auto answers = symbolizer.SymbolizeBatch(module, addresses);
  ASSERT_EQ(answers.size(), addresses.size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    auto alone = symbolizer.Symbolize(module, addresses[i]);
    ASSERT_EQ(answers[i].ok(), alone.ok());
    if (alone.ok()) {
      EXPECT_EQ(Describe(*answers[i]), Describe(*alone));
    }
  }
}

// Every byte of headers and of parts of the tables overwritten in turn: an error or wrong names, never a crash.
TEST_F(SymbolizerDebugTest, DamagedFilesDoNotCrash) {
  std::ifstream in(library_, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  ASSERT_GT(whole.size(), 10'000u);
  const std::string damaged = (directory_ / "damaged.so").string();
  uint64_t random = 88172645463325252u;  // xorshift64: the same damage in every run
  auto next = [&random] {
    random ^= random << 13;
    random ^= random >> 7;
    return random ^= random << 17;
  };
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    if (round % 5 == 0) bytes.resize(next() % bytes.size());
    for (int i = 0; i < 1 + round % 40 && !bytes.empty(); ++i) bytes[next() % bytes.size()] = static_cast<char>(next());
    if (bytes.size() > 64 && round % 3 == 0) bytes[next() % 64] = static_cast<char>(next());
    // Section headers are at the end.
    if (bytes.size() > 2000 && round % 2 == 0) bytes[bytes.size() - 1 - next() % 2000] = static_cast<char>(next());
    std::ofstream(damaged, std::ios::binary | std::ios::trunc) << bytes;
    Symbolizer symbolizer({.debug_directories = {}});
    for (uint64_t address = 0x1000; address < 0x1400; address += 13) {
      (void)symbolizer.Symbolize({.path = damaged}, address);
    }
  }
}

// Each string runs on to the end of its section, where no NUL is.
TEST_F(SymbolizerDebugTest, StringsWithoutAnEndStayInTheirSection) {
  std::ifstream in(library_, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  elf_version(EV_CURRENT);
  Elf* elf = elf_memory(bytes.data(), bytes.size());
  size_t names = 0;
  ASSERT_EQ(elf_getshdrstrndx(elf, &names), 0);
  int filled = 0;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header;
    ASSERT_NE(gelf_getshdr(section, &header), nullptr);
    const std::string name = elf_strptr(elf, names, header.sh_name);
    if (name != ".debug_str" && name != ".debug_line_str") continue;
    bytes.replace(header.sh_offset, header.sh_size, header.sh_size, 'x');
    ++filled;
  }
  elf_end(elf);
  ASSERT_EQ(filled, 2);
  const std::string damaged = (directory_ / "endless.so").string();
  std::ofstream(damaged, std::ios::binary) << bytes;
  Symbolizer symbolizer({.debug_directories = {}});
  for (uint64_t address = 0x1000; address < 0x1400; ++address) {
    const auto frames = symbolizer.Symbolize({.path = damaged}, address);
    if (!frames.ok()) continue;
    for (const auto& frame : *frames) EXPECT_LT(frame.file.size(), bytes.size());
  }
}

TEST(Symbolizer, OpensOnlyRegularFiles) {
  const std::string fifo = testing::TempDir() + absl::StrCat("nodeleak-fifo-", getpid());
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  Symbolizer symbolizer;
  for (const std::string& path : {fifo, std::string("/dev/zero"), std::string("/dev/tty"), std::string("/tmp")}) {
    auto frames = symbolizer.Symbolize({.path = path}, 0x1000);
    EXPECT_THAT(std::string(frames.status().message()), HasSubstr("not a regular file")) << path;
  }
  unlink(fifo.c_str());
  EXPECT_THAT(symbolizer.Describe({.path = "/nonexistent/x.node"}).why, HasSubstr("file is gone"));
  EXPECT_THAT(symbolizer.Describe({.path = kSource.string()}).why, HasSubstr("not an ELF file"));
  EXPECT_EQ(symbolizer.Describe({.path = "[vdso]"}).state, ModuleState::kRefused);
  EXPECT_EQ(symbolizer.Describe({.path = ""}).state, ModuleState::kRefused);
}

}  // namespace
}  // namespace nodeleak::symbolizer
