#include "tracer/seccomp_check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"
#include "tracer/seccomp_filter.h"
#include "tracer/traced_thread.h"

namespace nodeleak::tracer {
namespace {

// What loading, starting and running the recorder takes (tests/attach/seccomp_test.py allows nothing else), with the
// arguments that filters look at. As they stand here all of them are harmless: most fail for lack of a descriptor or an
// address.
struct CallRow {
  const char* name;
  long number;
  uint64_t arguments[6];
  bool can_be_tried = true;
};
constexpr uint64_t kNone = ~uint64_t{0};     // no descriptor
constexpr uint64_t kThreadFlags = 0x3d0f00;  // pthread_create's
constexpr CallRow kCalls[] = {
    {"memfd_create", SYS_memfd_create, {0, MFD_CLOEXEC}},
    {"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0}},
    {"mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, kNone, 0}},
    {"mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, kNone, 0}},
    {"mprotect", SYS_mprotect, {0, 0, PROT_READ}},
    {"munmap", SYS_munmap, {0, 0}},
    {"madvise", SYS_madvise, {0, 0, MADV_WIPEONFORK}},
    {"mincore", SYS_mincore, {0, 4096, 0}},  // libunwind, which asks so whether memory can be read; by a pipe, too
    {"pipe2", SYS_pipe2, {0, O_CLOEXEC | O_NONBLOCK}},
    {"clone", SYS_clone, {kThreadFlags}, false},
    {"clone3", SYS_clone3, {0, 88}, false},
    {"exit", SYS_exit, {0}, false},
    {"set_robust_list", SYS_set_robust_list, {0, 0}},
    {"rseq", SYS_rseq, {0, 0}},
    {"brk", SYS_brk, {0}},
    {"sched_getaffinity", SYS_sched_getaffinity, {0, 0, 0}},
    {"restart_syscall", SYS_restart_syscall, {}},  // of a call that was interrupted when a thread was stopped
    {"tgkill", SYS_tgkill, {kNone, kNone, 0}},
    {"rt_sigprocmask", SYS_rt_sigprocmask, {SIG_SETMASK, 0, 0, 8}},
    {"rt_sigtimedwait", SYS_rt_sigtimedwait, {0, 0, 0, 8}},
    {"rt_sigaction", SYS_rt_sigaction, {SIGTERM, 0, 0, 8}},
    {"prctl", SYS_prctl, {PR_SET_NAME, 0}},
    {"futex", SYS_futex, {0, 1}},
    {"gettid", SYS_gettid, {}},
    {"getpid", SYS_getpid, {}},
    {"getppid", SYS_getppid, {}},
    {"sched_yield", SYS_sched_yield, {}},
    {"nanosleep", SYS_nanosleep, {0, 0}},
    {"clock_gettime", SYS_clock_gettime, {0, 0}},
    {"process_vm_readv", SYS_process_vm_readv, {kNone, 0, 0, 0, 0, 0}},
    {"openat", SYS_openat, {kNone, 0, O_RDONLY | O_CLOEXEC}},
    {"close", SYS_close, {kNone}},
    {"read", SYS_read, {kNone, 0, 0}},
    {"write", SYS_write, {kNone, 0, 0}},
    {"pread64", SYS_pread64, {kNone, 0, 0, 0}},
    {"pwrite64", SYS_pwrite64, {kNone, 0, 0, 0}},
    {"fstat", SYS_fstat, {kNone, 0}},
    {"newfstatat", SYS_newfstatat, {kNone, 0, 0, 0}},
    {"fcntl", SYS_fcntl, {kNone, F_DUPFD_CLOEXEC, 900}},
    {"ftruncate", SYS_ftruncate, {kNone, 0}},
    {"fallocate", SYS_fallocate, {kNone, 0, 0, 0}},
    {"sync_file_range", SYS_sync_file_range, {kNone, 0, 0, 0}},
    {"readlinkat", SYS_readlinkat, {kNone, 0, 0, 0}},
    {"readlink", SYS_readlink, {0, 0, 0}},
    {"getcwd", SYS_getcwd, {0, 0}},
    {"prlimit64", SYS_prlimit64, {0, RLIMIT_FSIZE, 0, 0}},
    {"recvmsg", SYS_recvmsg, {kNone, 0, 0}},
    {"recvfrom", SYS_recvfrom, {kNone, 0, 0, 0, 0, 0}},
    {"poll", SYS_poll, {0, 0, 0}},
};

// Without these the recorder would not come to an end in the process, or get no file.
constexpr long kIndispensable[] = {SYS_recvmsg, SYS_poll,   SYS_fcntl,  SYS_fstat,
                                   SYS_close,   SYS_gettid, SYS_getpid, SYS_exit};

constexpr char kHowToTell[] =
    "; run nodeleak as root of the host, or, when the filter is known only to refuse calls (Docker's default profile "
    "does), give --trust-seccomp";

absl::Status WouldEnd(const char* call) {
  return absl::FailedPreconditionError(
      absl::StrCat("it runs under a seccomp filter that would end it for ", call, ", which the recorder needs"));
}

struct FiltersOfThread {
  std::vector<SeccompFilter> filters;
  bool has_rseq = true;
};

// glibc ends the process when a new thread may not register its rseq as the one that starts it has (glibc 2.36,
// nptl/pthread_create.c, start_thread).
bool IsIndispensable(const CallRow& call, const FiltersOfThread& thread) {
  if (call.number == SYS_rseq) return thread.has_rseq;
  return std::find(std::begin(kIndispensable), std::end(kIndispensable), call.number) != std::end(kIndispensable);
}

// A handler in another process may let the call wait for ever.
absl::Status Judge(uint32_t result, const CallRow& call, const FiltersOfThread& thread) {
  switch (result & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
      return WouldEnd(call.name);
    case SECCOMP_RET_USER_NOTIF:
      return absl::FailedPreconditionError(
          absl::StrCat("it runs under a seccomp filter that asks another process about ", call.name, kHowToTell));
    case SECCOMP_RET_ERRNO:
      if (!IsIndispensable(call, thread)) return absl::OkStatus();  // said where it is missed
      return absl::FailedPreconditionError(
          absl::StrCat("it runs under a seccomp filter that refuses ", call.name, ", which the recorder needs"));
    default:
      return absl::OkStatus();
  }
}

absl::Status JudgeFilters(const FiltersOfThread& thread) {
  for (const CallRow& call : kCalls) {
    seccomp_data data = {};
    data.nr = static_cast<int>(call.number);
    data.arch = AUDIT_ARCH_X86_64;
    std::copy(std::begin(call.arguments), std::end(call.arguments), data.args);
    if (absl::Status status = Judge(RunSeccompFilters(thread.filters, data), call, thread); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string ThreadStatus(pid_t pid, pid_t thread) {
  return ReadProcFile(pid, absl::StrCat("task/", thread, "/status"));
}

// Of a stopped thread. Linux before 5.13 does not tell.
bool HasRseq(pid_t thread) {
  __ptrace_rseq_configuration rseq = {};
  return ptrace(PTRACE_GET_RSEQ_CONFIGURATION, thread, sizeof rseq, &rseq) < 0 || rseq.rseq_abi_pointer != 0;
}

// nullopt: they may not be read.
absl::StatusOr<std::optional<FiltersOfThread>> ReadFilters(pid_t thread) {
  constexpr std::chrono::milliseconds kPatience(1000);
  absl::StatusOr<TracedThread> seized = TracedThread::Seize(thread);
  if (!seized.ok()) return seized.status();
  seized->Interrupt();
  const TracedThread::Stop stop = seized->AwaitStop(kPatience);
  if (stop == TracedThread::Stop::kEnded) return absl::NotFoundError("it has ended");
  if (stop != TracedThread::Stop::kStopped)
    return absl::UnavailableError(
        absl::StrCat("its thread ", thread, " does not stop: is it frozen, as by docker pause?"));
  FiltersOfThread read;
  read.has_rseq = HasRseq(thread);
  constexpr auto kGetFilter = static_cast<__ptrace_request>(PTRACE_SECCOMP_GET_FILTER);
  for (uintptr_t index = 0;; ++index) {
    const long count = ptrace(kGetFilter, thread, index, nullptr);
    if (count < 0 && errno == ENOENT) return std::make_optional(read);
    if (count < 0) return std::optional<FiltersOfThread>();
    SeccompFilter filter(static_cast<size_t>(count));
    if (ptrace(kGetFilter, thread, index, filter.data()) != count) return std::optional<FiltersOfThread>();
    read.filters.push_back(std::move(filter));
  }
}

// Of threads with as many filters one is asked: they have inherited them from each other.
std::map<std::string, pid_t> FilteredThreads(pid_t pid) {
  std::map<std::string, pid_t> threads;
  for (pid_t thread : ReadThreadIds(pid)) {
    const std::string status = ThreadStatus(pid, thread);
    if (StatusField(status, "Seccomp") == "2") threads.emplace(StatusField(status, "Seccomp_filters"), thread);
  }
  return threads;
}

// In a child that lives under the same filters as we do.
absl::Status TryCalls() {
  for (const CallRow& call : kCalls) {
    if (!call.can_be_tried) continue;
    const pid_t child = fork();
    if (child < 0) return absl::UnavailableError(absl::StrCat("cannot start a child: ", strerror(errno)));
    if (child == 0) {
      const rlimit no_core = {0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      const uint64_t* argument = call.arguments;
      const long ignored =
          syscall(call.number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
      static_cast<void>(ignored);
      _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) return WouldEnd(call.name);
  }
  return absl::OkStatus();
}

bool LivesUnderTheSame(const std::string& filters) {
  const std::string own = ReadProcFile(getpid(), "status");
  return StatusField(own, "Seccomp") == "2" && !filters.empty() && StatusField(own, "Seccomp_filters") == filters;
}

}  // namespace

std::vector<RecorderCall> CallsOfRecorder() {
  std::vector<RecorderCall> calls;
  for (const CallRow& row : kCalls) calls.push_back({row.name, row.number});
  return calls;
}

absl::Status CheckSeccompFilters(pid_t pid, bool trust) {
  for (const auto& [filters, thread] : FilteredThreads(pid)) {
    const auto read = ReadFilters(thread);
    if (absl::IsNotFound(read.status())) continue;  // it has ended
    if (!read.ok()) return read.status();
    absl::Status status = read->has_value() ? JudgeFilters(**read) : absl::OkStatus();
    if (status.ok() && !read->has_value() && !trust) {
      if (!LivesUnderTheSame(filters))
        return absl::FailedPreconditionError(
            absl::StrCat("it runs under a seccomp filter that cannot be read, and might end it", kHowToTell));
      status = TryCalls();
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace nodeleak::tracer
