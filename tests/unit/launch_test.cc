#include "tracer/launch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "recording/layout.h"
#include "tracer/preflight.h"

namespace nodeleak::tracer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LaunchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "launch.XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { ASSERT_EQ(system(absl::StrCat("rm -r '", folder_, "'").c_str()), 0); }

  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }
  void Write(const std::string& name, const std::string& bytes, mode_t mode = 0755) const {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    chmod(Path(name).c_str(), mode);
  }
  std::string Read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(Path(name)).rdbuf();
    return text.str();
  }
  // A library that is loaded anyway stands for the shim: these tests are about the launcher.
  LaunchOptions Options(std::vector<std::string> command) const {
    LaunchOptions options;
    options.command = std::move(command);
    options.shim = "/lib/x86_64-linux-gnu/libm.so.6";
    options.output_template = Path("nodeleak.%n.%p.rec");
    return options;
  }
  absl::StatusOr<LaunchResult> Shell(const std::string& script) const {
    return Launch(Options({"/bin/sh", "-c", script}));
  }
  std::string folder_;
};

TEST_F(LaunchTest, GivesTheExitStatusOfTheCommand) {
  absl::StatusOr<LaunchResult> result = Shell("exit 37");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 37);
  EXPECT_EQ(result->end_signal, 0);
}

TEST_F(LaunchTest, GivesTheSignalThatEndedTheCommand) {
  absl::StatusOr<LaunchResult> result = Shell("kill -KILL $$");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->end_signal, SIGKILL);
}

TEST_F(LaunchTest, TheCommandFindsItsSettings) {
  setenv("LD_PRELOAD", "/lib/x86_64-linux-gnu/libdl.so.2", 1);
  setenv("NODELEAK_INDEX", "of-an-outer-nodeleak", 1);
  LaunchOptions options = Options({"/bin/sh", "-c", absl::StrCat("echo $$ >", Path("pid"), "; env >", Path("env"))});
  options.sample_bytes = 1999;
  options.gc_at_end = false;
  absl::StatusOr<LaunchResult> result = Launch(options);
  unsetenv("LD_PRELOAD");
  unsetenv("NODELEAK_INDEX");
  ASSERT_TRUE(result.ok()) << result.status();
  std::string environment = Read("env");
  EXPECT_THAT(environment, HasSubstr("LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6:/lib/x86_64-linux-gnu/libdl.so.2\n"));
  EXPECT_THAT(environment, HasSubstr(absl::StrCat("NODELEAK_OUTPUT=", Path("nodeleak.%n.%p.rec"), "\n")));
  EXPECT_THAT(environment, HasSubstr("NODELEAK_SAMPLE=1999\n"));
  EXPECT_THAT(environment, HasSubstr("NODELEAK_GC=off\n"));
  EXPECT_THAT(environment, HasSubstr(absl::StrCat("NODELEAK_ROOT=", Read("pid"))));
  EXPECT_THAT(environment, ::testing::Not(HasSubstr("of-an-outer-nodeleak")));
}

TEST_F(LaunchTest, ReadsTheIndexInOrder) {
  absl::StatusOr<LaunchResult> result = Shell("echo /b.rec >>$NODELEAK_INDEX; echo /a.rec >>$NODELEAK_INDEX");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->recordings, ElementsAre("/b.rec", "/a.rec"));
}

TEST_F(LaunchTest, PassesOnASignalThatWasSentToItAlone) {
  absl::StatusOr<LaunchResult> result = Shell("trap 'exit 19' USR1; kill -USR1 $PPID; while :; do :; done");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 19);
}

TEST_F(LaunchTest, TheCommandKeepsTheSignalMaskAndActionsOfItsCaller) {
  signal(SIGUSR2, SIG_IGN);
  absl::StatusOr<LaunchResult> result =
      Shell(absl::StrCat("grep -E 'SigBlk|SigIgn' /proc/self/status >", Path("signals")));
  signal(SIGUSR2, SIG_DFL);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(Read("signals"), HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(Read("signals"), HasSubstr("800\n")) << "bit 11 of SigIgn is SIGUSR2";
}

TEST_F(LaunchTest, AMissingProgramIsASentence) {
  EXPECT_THAT(std::string(Launch(Options({"no-such-program-1999"})).status().message()),
              HasSubstr("cannot run no-such-program-1999: there is no such program in PATH"));
  EXPECT_THAT(std::string(Launch(Options({Path("gone")})).status().message()), HasSubstr("No such file or directory"));
  EXPECT_THAT(std::string(Launch(Options({""})).status().message()), HasSubstr("the name of the program is empty"));
  EXPECT_THAT(std::string(Launch(Options({folder_})).status().message()), HasSubstr("it is a directory"));
}

TEST_F(LaunchTest, AnOutputFolderThatCannotBeWrittenIsSaidBeforeTheCommandRuns) {
  LaunchOptions options = Options({"/bin/sh", "-c", absl::StrCat("echo ran >", Path("ran"))});
  options.output_template = Path("missing/x.rec");
  EXPECT_THAT(std::string(Launch(options).status().message()), HasSubstr("cannot write a recording into"));
  EXPECT_EQ(Read("ran"), "");
}

TEST_F(LaunchTest, WhatIsNoRecordingIsInTheWayBeforeTheCommandRuns) {
  Write("notes.rec", "my notes");
  ASSERT_EQ(symlink(Path("gone").c_str(), Path("link.rec").c_str()), 0);
  LaunchOptions options = Options({"/bin/sh", "-c", "echo ran > " + Path("ran")});
  for (const char* name : {"notes.rec", "link.rec"}) {
    options.output_template = Path(name);
    EXPECT_THAT(std::string(Launch(options).status().message()), HasSubstr("choose another place with --output"))
        << name;
  }
  EXPECT_EQ(Read("notes.rec"), "my notes");
  EXPECT_EQ(Read("ran"), "");
}

TEST_F(LaunchTest, TheEndGoesIntoTheRecordingOfThatProcessOnly) {
  recording::Header header = {};
  header.magic = recording::kMagic;
  header.version = recording::kFormatVersion;
  header.header_bytes = sizeof header;
  header.pid = 50021;
  Write("x.rec", std::string(reinterpret_cast<const char*>(&header), sizeof header));
  EXPECT_FALSE(WriteEnd(Path("x.rec"), 50022, 3, 0));
  EXPECT_TRUE(WriteEnd(Path("x.rec"), 50021, -1, SIGKILL));
  std::string bytes = Read("x.rec");
  memcpy(&header, bytes.data(), sizeof header);
  EXPECT_EQ(header.end_signal, SIGKILL);
  EXPECT_EQ(header.exit_code, -1);
  EXPECT_EQ(header.state, static_cast<uint32_t>(recording::ProcessState::kEnded));

  ASSERT_EQ(symlink(Path("x.rec").c_str(), Path("link.rec").c_str()), 0);
  EXPECT_FALSE(WriteEnd(Path("link.rec"), 50021, 0, 0)) << "never through a symbolic link";
  EXPECT_FALSE(WriteEnd(Path("none.rec"), 50021, 0, 0));
}

TEST(ScriptInterpreter, ComesFromTheFirstLine) {
  EXPECT_EQ(ParseScriptInterpreter("#!/usr/bin/env node\nx"), "node");
  EXPECT_EQ(ParseScriptInterpreter("#!/usr/bin/env -S A=1 node --x\n"), "node");
  EXPECT_EQ(ParseScriptInterpreter("#! /bin/sh -e\n"), "/bin/sh");
  EXPECT_EQ(ParseScriptInterpreter("\x7f"
                                   "ELF"),
            "");
  EXPECT_EQ(ParseScriptInterpreter("#!\n"), "");
}

// The smallest ELF head with, or without, a dynamic linker.
std::string Elf(uint8_t elf_class, const std::string& interpreter) {
  std::string file(
      "\x7f"
      "ELF",
      4);
  file.resize(64 + 56, '\0');
  file[4] = static_cast<char>(elf_class);
  file[5] = 1;                             // little endian
  file[18] = 62;                           // x86-64
  file[32] = 64;                           // program headers follow at once
  file[54] = 56;                           // size of one
  file[56] = interpreter.empty() ? 0 : 1;  // how many
  file[64] = 3;                            // PT_INTERP
  file[64 + 8] = 120;                      // its offset
  file[64 + 32] = static_cast<char>(interpreter.size() + 1);
  return file + interpreter + '\0';
}

TEST_F(LaunchTest, ProgramsThatIgnorePreloadsAreRefusedByName) {
  Write("glibc", Elf(2, "/lib64/ld-linux-x86-64.so.2"));
  Write("musl", Elf(2, "/lib/ld-musl-x86_64.so.1"));
  Write("static", Elf(2, ""));
  Write("old", Elf(1, "/lib/ld-linux.so.2"));
  Write("script", absl::StrCat("#!", Path("static"), "\n"));
  EXPECT_TRUE(CheckPreloadable(Path("glibc")).ok());
  EXPECT_THAT(std::string(CheckPreloadable(Path("musl")).message()), HasSubstr("linked with musl"));
  EXPECT_THAT(std::string(CheckPreloadable(Path("static")).message()), HasSubstr("statically linked"));
  EXPECT_THAT(std::string(CheckPreloadable(Path("old")).message()), HasSubstr("32-bit"));
  EXPECT_THAT(std::string(CheckPreloadable(Path("script")).message()), HasSubstr("statically linked"));
}

}  // namespace
}  // namespace nodeleak::tracer
