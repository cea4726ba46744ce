#include "tracer/attach_preflight.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "recording/process.h"
#include "tracer/proc_files.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {
namespace {

constexpr size_t kHeadBytes = 4096;  // ELF header and program headers are in here

absl::Status Refuse(absl::string_view why) { return absl::FailedPreconditionError(why); }

std::string Comm(pid_t pid) { return std::string(absl::StripAsciiWhitespace(ReadProcFile(pid, "comm"))); }

std::string RealUser(absl::string_view status) {
  return std::string(absl::string_view(StatusField(status, "Uid")).substr(0, StatusField(status, "Uid").find('\t')));
}

absl::Status CheckState(const std::string& status) {
  struct Row {
    char state;
    const char* why;
  };
  constexpr Row kStates[] = {
      {'Z', "it has ended already (a zombie that its parent has not waited for)"},
      {'X', "it has ended already"},
      {'T', "it is stopped (SIGSTOP or Ctrl-Z); let it go on with kill -CONT first"},
  };
  const std::string state = StatusField(status, "State");
  for (const Row& row : kStates)
    if (absl::StartsWith(state, std::string(1, row.state))) return Refuse(row.why);
  pid_t tracer = 0;
  if (absl::SimpleAtoi(StatusField(status, "TracerPid"), &tracer) && tracer != 0)
    return Refuse(absl::StrCat("process ", tracer, " (", Comm(tracer),
                               ") is tracing it, and there can be only one tracer; end that one first"));
  if (StatusField(status, "Seccomp") == "1")
    return Refuse("it runs under strict seccomp and may do nothing but read, write and exit");
  return absl::OkStatus();
}

// The dynamic linker that the program names; empty: statically linked.
std::string FindInterpreter(int fd, const Elf64_Ehdr& elf, const std::string& head) {
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    const size_t at = elf.e_phoff + i * sizeof(Elf64_Phdr);
    if (at > head.size() || head.size() - at < sizeof(Elf64_Phdr)) break;
    Elf64_Phdr segment;
    memcpy(&segment, head.data() + at, sizeof segment);
    if (segment.p_type != PT_INTERP) continue;
    std::string name(std::min<size_t>(segment.p_filesz, kHeadBytes), '\0');
    const ssize_t got = pread(fd, name.data(), name.size(), static_cast<off_t>(segment.p_offset));
    name.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return name.c_str();  // up to its NUL
  }
  return "";
}

absl::Status CheckExecutable(int fd) {
  std::string head(kHeadBytes, '\0');
  const ssize_t got = pread(fd, head.data(), head.size(), 0);
  head.resize(got > 0 ? static_cast<size_t>(got) : 0);
  if (head.size() <= EI_CLASS || !absl::StartsWith(head, ELFMAG)) return Refuse("its program is no ELF file");
  if (head[EI_CLASS] == ELFCLASS32) return Refuse("it is a 32-bit program; nodeleak attaches to 64-bit x86 programs");
  Elf64_Ehdr elf;
  if (head.size() < sizeof elf) return Refuse("its program is no ELF file");
  memcpy(&elf, head.data(), sizeof elf);
  if (elf.e_machine != EM_X86_64) return Refuse("it is a program for another processor than x86-64");
  const std::string interpreter = FindInterpreter(fd, elf, head);
  if (interpreter.empty())
    return Refuse("it is statically linked, so no library can be loaded into it; use a dynamically linked build");
  if (absl::StrContains(interpreter, "ld-musl"))
    return Refuse("it is linked with musl (Alpine Linux?); nodeleak attaches to programs that use glibc");
  return absl::OkStatus();
}

bool LooksLikeNode(pid_t pid, absl::string_view executable) {
  if (absl::StrContains(executable.substr(executable.rfind('/') + 1), "node")) return true;
  const std::vector<Mapping> mappings = ReadMappings(pid);
  return std::any_of(mappings.begin(), mappings.end(),
                     [](const Mapping& mapping) { return absl::StrContains(mapping.path, "/libnode.so"); });
}

std::string ReadExecutableName(pid_t pid) {
  char name[4096];
  const ssize_t length = readlink(ProcPath(pid, "exe").c_str(), name, sizeof name);
  return length > 0 ? std::string(name, static_cast<size_t>(length)) : "";
}

std::vector<std::string> Notes(const AttachTarget& target, const std::string& status) {
  std::vector<std::string> notes;
  if (!LooksLikeNode(target.pid, target.executable))
    notes.push_back(absl::StrCat("process ", target.pid, " (", Comm(target.pid),
                                 ") does not look like node: only native frames are recorded"));
  if (StatusField(status, "Seccomp") == "2")
    notes.push_back(
        absl::StrCat("process ", target.pid, " runs under a seccomp filter, which may refuse what is needed"));
  return notes;
}

}  // namespace

std::string ExplainRefusal(pid_t pid) {
  const std::string status = ReadProcFile(pid, "status");
  const std::string user = RealUser(status);
  if (geteuid() != 0 && user != absl::StrCat(geteuid()))
    return absl::StrCat("it runs as user ", user, " and nodeleak as user ", geteuid(),
                        "; run nodeleak as that user or as root");
  const std::string scope(absl::StripAsciiWhitespace(ReadWholeFile("/proc/sys/kernel/yama/ptrace_scope")));
  if (scope == "3") return "this kernel allows no tracing until it is booted again (kernel.yama.ptrace_scope is 3)";
  if (geteuid() == 0)
    return "the kernel does not allow it even to root: is CAP_SYS_PTRACE missing (docker run --cap-add=SYS_PTRACE), or "
           "does a security module forbid it?";
  if (scope == "1" || scope == "2")
    return absl::StrCat("this kernel lets only root trace a process that is no child (kernel.yama.ptrace_scope is ",
                        scope, "); run nodeleak as root, or set it to 0 with sysctl");
  return "it has more rights than nodeleak (capabilities, or it made itself undumpable); run nodeleak as root";
}

namespace {

// A process that is ending has no program for a moment, too.
bool IsKernelThread(pid_t pid) {
  constexpr uint32_t kOfTheKernel = 0x00200000;        // PF_KTHREAD
  const std::string stat = ReadProcFile(pid, "stat");  // "id (name) state ppid pgrp session tty tpgid flags ..."
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return false;
  const std::vector<std::string> fields =
      absl::StrSplit(absl::string_view(stat).substr(name_end + 1), ' ', absl::SkipEmpty());
  uint32_t flags = 0;
  return fields.size() > 6 && absl::SimpleAtoi(fields[6], &flags) && (flags & kOfTheKernel) != 0;
}

// "Max file size    SOFT    HARD    bytes"
uint64_t ReadFileSizeLimit(pid_t pid) {
  constexpr char kName[] = "Max file size";
  const std::string limits = ReadProcFile(pid, "limits");
  const size_t at = limits.find(kName);
  uint64_t bytes = 0;
  if (at == std::string::npos) return UINT64_MAX;
  const std::vector<absl::string_view> words =
      absl::StrSplit(absl::string_view(limits).substr(at + strlen(kName)), ' ', absl::SkipEmpty());
  return !words.empty() && absl::SimpleAtoi(words[0], &bytes) ? bytes : UINT64_MAX;
}

absl::StatusOr<AttachTarget> Check(pid_t pid) {
  const std::string status = ReadProcFile(pid, "status");
  if (status.empty()) return Refuse("there is no such process");
  if (pid == getpid()) return Refuse("that is nodeleak itself");
  if (StatusField(status, "Tgid") != absl::StrCat(pid))
    return Refuse(absl::StrCat("that is a thread of process ", StatusField(status, "Tgid"), "; attach to that one"));
  if (absl::Status checked = CheckState(status); !checked.ok()) return checked;
  UniqueFd executable(open(ProcPath(pid, "exe").c_str(), O_RDONLY | O_CLOEXEC));
  if (!executable.valid()) {
    if (errno == ENOENT)
      return Refuse(IsKernelThread(pid) ? "it has no program: it is a thread of the kernel" : "it is ending");
    if (errno == EACCES || errno == EPERM) return Refuse(ExplainRefusal(pid));
    return Refuse(absl::StrCat("cannot open its program: ", strerror(errno)));
  }
  if (absl::Status checked = CheckExecutable(executable.get()); !checked.ok()) return checked;
  AttachTarget target;
  target.pid = pid;
  target.start_ticks = recording::ProcessStartTicks(static_cast<uint32_t>(pid)).value_or(0);
  target.executable = ReadExecutableName(pid);
  target.file_size_limit = ReadFileSizeLimit(pid);
  target.notes = Notes(target, status);
  return target;
}

}  // namespace

absl::StatusOr<AttachTarget> CheckAttachable(pid_t pid, absl::string_view verb) {
  absl::StatusOr<AttachTarget> target = Check(pid);
  if (target.ok()) return target;
  return absl::Status(target.status().code(), absl::StrCat("cannot ", verb, " ", pid, ": ", target.status().message()));
}

}  // namespace nodeleak::tracer
