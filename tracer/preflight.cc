#include "tracer/preflight.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {
namespace {

constexpr size_t kHeadBytes = 4096;  // ELF header, program headers and a script's first line are in here
constexpr int kMaxScriptDepth = 4;   // BINPRM_BUF recursion limit of Linux, fs/exec.c

std::string ReadHead(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return "";
  std::string head(kHeadBytes, '\0');
  ssize_t got = pread(fd.get(), head.data(), head.size(), 0);
  head.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return head;
}

absl::Status Refuse(const std::string& path, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot record ", path, ": ", why));
}

// The dynamic linker that an ELF file names; empty: statically linked.
std::string FindInterpreter(const std::string& path, const Elf64_Ehdr& elf, const std::string& head) {
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    size_t at = elf.e_phoff + i * sizeof(Elf64_Phdr);
    if (at > head.size() || head.size() - at < sizeof(Elf64_Phdr)) break;
    Elf64_Phdr program;
    memcpy(&program, head.data() + at, sizeof program);
    if (program.p_type != PT_INTERP) continue;
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string name(std::min<size_t>(program.p_filesz, kHeadBytes), '\0');
    ssize_t got = pread(fd.get(), name.data(), name.size(), static_cast<off_t>(program.p_offset));
    name.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return name.c_str();  // up to its NUL
  }
  return "";
}

absl::Status CheckElf(const std::string& path, const std::string& head) {
  if (head[EI_CLASS] == ELFCLASS32) return Refuse(path, "it is a 32-bit program; nodeleak records 64-bit x86 programs");
  Elf64_Ehdr elf;
  if (head.size() < sizeof elf) return absl::OkStatus();
  memcpy(&elf, head.data(), sizeof elf);
  if (elf.e_machine != EM_X86_64) return Refuse(path, "it is a program for another processor than x86-64");
  std::string interpreter = FindInterpreter(path, elf, head);
  if (interpreter.empty())
    return Refuse(path, "it is statically linked, so nothing can be preloaded into it; use a dynamically linked build");
  if (absl::StrContains(interpreter, "ld-musl"))
    return Refuse(path, "it is linked with musl (Alpine Linux?); nodeleak records programs that use glibc");
  return absl::OkStatus();
}

// The dynamic linker drops LD_PRELOAD of a program that runs with more rights than the caller (AT_SECURE).
absl::Status CheckPrivileges(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return absl::OkStatus();
  bool other_user = (status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid();
  bool other_group = (status.st_mode & S_ISGID) != 0 && status.st_gid != getegid();
  if (other_user || other_group)
    return Refuse(path, "it is setuid or setgid, and such programs ignore LD_PRELOAD; start nodeleak inside of it");
  if (geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0)
    return Refuse(path, "it has file capabilities, and such programs ignore LD_PRELOAD; run a copy without them");
  return absl::OkStatus();
}

std::string WhyNotRunnable(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return strerror(errno);
  if (S_ISDIR(status.st_mode)) return "it is a directory";
  if (access(path.c_str(), X_OK) != 0) return absl::StrCat(strerror(errno), " (is it executable?)");
  return "";
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (absl::StrContains(name, '/')) {
    std::string why = WhyNotRunnable(name);
    if (!why.empty()) return absl::NotFoundError(absl::StrCat("cannot run ", name, ": ", why));
    return name;
  }
  if (name.empty()) return absl::InvalidArgumentError("cannot run '': the name of the program is empty");
  const char* path = getenv("PATH");
  for (absl::string_view folder : absl::StrSplit(path != nullptr ? path : "/bin:/usr/bin", ':')) {
    std::string candidate = absl::StrCat(folder.empty() ? "." : folder, "/", name);
    if (WhyNotRunnable(candidate).empty()) return candidate;
  }
  std::string hint = name == "node" ? " (install Node.js, or give the path of its node binary)" : "";
  return absl::NotFoundError(absl::StrCat("cannot run ", name, ": there is no such program in PATH", hint));
}

std::string ParseScriptInterpreter(absl::string_view first_bytes) {
  if (!absl::ConsumePrefix(&first_bytes, "#!")) return "";
  absl::string_view line = first_bytes.substr(0, first_bytes.find('\n'));
  std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.empty()) return "";
  bool is_env = words[0] == "env" || absl::EndsWith(words[0], "/env");
  if (!is_env) return std::string(words[0]);
  for (size_t i = 1; i < words.size(); ++i)
    if (words[i][0] != '-' && !absl::StrContains(words[i], '=')) return std::string(words[i]);
  return std::string(words[0]);
}

absl::Status CheckPreloadable(const std::string& path) {
  std::string current = path;
  for (int depth = 0; depth <= kMaxScriptDepth; ++depth) {
    if (absl::Status status = CheckPrivileges(current); !status.ok()) return status;
    std::string head = ReadHead(current);
    if (absl::StartsWith(head, ELFMAG) && head.size() > EI_CLASS) return CheckElf(current, head);
    std::string interpreter = ParseScriptInterpreter(head);
    if (interpreter.empty()) return absl::OkStatus();
    absl::StatusOr<std::string> found = FindProgram(interpreter);
    if (!found.ok())
      return absl::NotFoundError(absl::StrCat("cannot run ", current, ", a script: ", found.status().message()));
    current = *std::move(found);
  }
  return absl::OkStatus();
}

}  // namespace nodeleak::tracer
