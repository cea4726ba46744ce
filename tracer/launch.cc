#include "tracer/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "recording/destination.h"
#include "tracer/preflight.h"
#include "tracer/unique_fd.h"
#include "tracer/witness.h"

extern char** environ;

namespace nodeleak::tracer {
namespace {

// Taken by sigwaitinfo while the command runs. What the kernel sent (a key at the terminal, its hangup) went to the
// whole foreground group and so has reached the command, and so has what the witness saw; what a process sent to us
// alone is passed on.
constexpr int kForwardedSignals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH, SIGALRM};

// LD_PRELOAD is a list separated by spaces and colons, with no way to quote them.
bool CanBePreloaded(absl::string_view path) { return path.find_first_of(" :") == absl::string_view::npos; }

// What the shims tell us, a line each: the path of a recording that was begun, or "!" and a sentence. In a directory
// that only we may enter. A shim that may write no file (RLIMIT_FSIZE) makes a link of it instead, FILE.PID -> line.
class Index {
 public:
  static absl::StatusOr<Index> Create() {
    const char* base = getenv("TMPDIR");
    bool usable = base != nullptr && base[0] == '/' && CanBePreloaded(base);
    std::string folder = absl::StrCat(usable ? base : "/tmp", "/nodeleak.XXXXXX");
    if (mkdtemp(folder.data()) == nullptr)
      return absl::UnavailableError(absl::StrCat("cannot create a temporary directory ", folder, ": ", strerror(errno),
                                                 "; set TMPDIR to a directory that can be written"));
    Index index(std::move(folder));
    UniqueFd fd(open(index.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.valid()) return absl::UnavailableError(absl::StrCat("cannot create ", index.path(), ": ", strerror(errno)));
    return index;
  }
  Index(Index&& other) noexcept : folder_(std::exchange(other.folder_, "")) {}
  Index& operator=(Index&&) = delete;
  ~Index() {
    if (folder_.empty()) return;
    for (const std::string& link : Links()) unlink(link.c_str());
    unlink(path().c_str());
    unlink(shim_link().c_str());
    rmdir(folder_.c_str());
  }

  std::string path() const { return absl::StrCat(folder_, "/recordings"); }

  // The shim's own path, or that of a link to it.
  absl::StatusOr<std::string> PreloadablePath(const std::string& shim) const {
    if (CanBePreloaded(shim)) return shim;
    if (symlink(shim.c_str(), shim_link().c_str()) == 0) return shim_link();
    return absl::UnavailableError(absl::StrCat("cannot create ", shim_link(), ": ", strerror(errno)));
  }

  std::vector<std::string> Read() const {
    UniqueFd fd(open(path().c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = read(fd.get(), buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(got));
    std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
    for (const std::string& link : Links()) {
      const ssize_t got = readlink(link.c_str(), buffer, sizeof buffer);
      if (got > 0) lines.emplace_back(buffer, static_cast<size_t>(got));
    }
    return lines;
  }

 private:
  explicit Index(std::string folder) : folder_(std::move(folder)) {}
  std::vector<std::string> Links() const {
    std::vector<std::string> links;
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(folder_.c_str()), closedir);
    const std::string prefix = absl::StrCat(path(), ".");
    while (const dirent* entry = folder != nullptr ? readdir(folder.get()) : nullptr) {
      std::string name = absl::StrCat(folder_, "/", entry->d_name);
      if (absl::StartsWith(name, prefix)) links.push_back(std::move(name));
    }
    return links;
  }
  std::string shim_link() const { return absl::StrCat(folder_, "/libnodeleak-preload.so"); }
  std::string folder_;
};

// Blocks the forwarded signals and SIGCHLD, ignores SIGXFSZ; the destructor gives back what was there before.
class SignalState {
 public:
  SignalState() {
    sigemptyset(&waited_);
    sigaddset(&waited_, SIGCHLD);
    for (int signal : kForwardedSignals) sigaddset(&waited_, signal);
    sigprocmask(SIG_BLOCK, &waited_, &mask_before_);
    // A parent may have left SIGCHLD ignored: then the kernel reaps our command and its status is lost.
    struct sigaction default_action = {};
    default_action.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &default_action, &child_action_before_);
    // What we write beyond our limit for files is an error.
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &ignore, &file_size_action_before_);
  }
  SignalState(const SignalState&) = delete;
  SignalState& operator=(const SignalState&) = delete;
  ~SignalState() {
    // A second Ctrl-C that came while the command was ending must not cost the report.
    timespec no_wait = {0, 0};
    while (sigtimedwait(&waited_, nullptr, &no_wait) > 0) {
    }
    Restore();
  }
  void Restore() const {  // also in the forked child
    sigaction(SIGCHLD, &child_action_before_, nullptr);
    sigaction(SIGXFSZ, &file_size_action_before_, nullptr);
    sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  }
  const sigset_t& waited() const { return waited_; }
  siginfo_t Wait() const {
    siginfo_t info = {};
    while (sigwaitinfo(&waited_, &info) < 0 && errno == EINTR) {
    }
    return info;
  }
  // Nothing when no signal came in time.
  std::optional<siginfo_t> WaitFor(long ms) const {
    const timespec timeout = {ms / 1000, ms % 1000 * 1'000'000};
    siginfo_t info = {};
    if (sigtimedwait(&waited_, &info, &timeout) < 0) return std::nullopt;
    return info;
  }

 private:
  sigset_t waited_;
  sigset_t mask_before_;
  struct sigaction child_action_before_, file_size_action_before_;
};

using Environment = std::vector<std::string>;

Environment MakeEnvironment(const LaunchOptions& options, const std::string& shim, const std::string& index_path) {
  const char* users_preload = getenv("LD_PRELOAD");
  bool keep = users_preload != nullptr && users_preload[0] != '\0';
  Environment ours = {
      absl::StrCat("LD_PRELOAD=", shim, keep ? ":" : "", keep ? users_preload : ""),
      absl::StrCat("NODELEAK_PRELOAD=", shim),
      absl::StrCat("NODELEAK_OUTPUT=", options.output_template),
      absl::StrCat("NODELEAK_INDEX=", index_path),
      absl::StrCat("NODELEAK_MAX_RECORDING=", options.max_recording_bytes),
      absl::StrCat("NODELEAK_SAMPLE=", options.sample_bytes),
      absl::StrCat("NODELEAK_GC=", options.gc_at_end ? "end" : "off"),
      absl::StrCat("NODELEAK_CHILDREN=", options.children),
      absl::StrCat("NODELEAK_ON_RSS=", options.on_rss_bytes),
  };
  // Settings of a nodeleak that we ourselves run under would be wrong for this command.
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (!absl::StartsWith(*variable, "NODELEAK_") && !absl::StartsWith(*variable, "LD_PRELOAD="))
      ours.push_back(*variable);
  return ours;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void RunCommand(std::vector<std::string> command, Environment environment, const SignalState& signals,
                             int error_pipe) {
  environment.push_back(absl::StrCat("NODELEAK_ROOT=", getpid()));
  signals.Restore();
  execvpe(command[0].c_str(), Pointers(command).data(), Pointers(environment).data());
  int error = errno;
  ssize_t ignored = write(error_pipe, &error, sizeof error);
  static_cast<void>(ignored);
  _exit(2);
}

// Forks and executes; returns when exec has succeeded, which closes the pipe.
absl::StatusOr<pid_t> Start(const LaunchOptions& options, const Index& index, const SignalState& signals) {
  absl::StatusOr<std::string> shim = index.PreloadablePath(options.shim);
  if (!shim.ok()) return shim.status();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::UnavailableError(absl::StrCat("cannot open a pipe: ", strerror(errno)));
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  pid_t pid = fork();
  if (pid < 0) return absl::UnavailableError(absl::StrCat("cannot start a process: ", strerror(errno)));
  if (pid == 0) RunCommand(options.command, MakeEnvironment(options, *shim, index.path()), signals, write_end.get());
  write_end.Reset();
  int error = 0;
  ssize_t got;
  while ((got = read(read_end.get(), &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (got != static_cast<ssize_t>(sizeof error)) return pid;
  waitpid(pid, nullptr, 0);
  return absl::NotFoundError(absl::StrCat("cannot run ", options.command[0], ": ", strerror(error)));
}

void PassOn(const siginfo_t& came, pid_t pid, const Witness& witness) {
  if (came.si_signo == SIGCHLD || came.si_code == SI_KERNEL) return;
  const bool in_our_group = getpgid(pid) == getpgrp();
  if (!in_our_group || !witness.SawToo(came)) kill(pid, came.si_signo);
}

// Until the command has ended; it stays a zombie, so that its pid still means it.
siginfo_t WaitForEnd(pid_t pid, const SignalState& signals, const Witness& witness, const std::function<void()>& look) {
  constexpr long kLookEveryMs = 250;
  for (;;) {
    siginfo_t ended = {};
    if (waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == pid)
      return ended;
    siginfo_t came = {};
    if (look) {
      look();
      std::optional<siginfo_t> in_time = signals.WaitFor(kLookEveryMs);
      if (!in_time.has_value()) continue;
      came = *in_time;
    } else {
      came = signals.Wait();
    }
    PassOn(came, pid, witness);
  }
}

// What the shims said: paths of recordings, and sentences that begin with "!".
void SplitIndex(std::vector<std::string> lines, LaunchResult* result) {
  result->recordings.clear();
  result->complaints.clear();
  for (std::string& line : lines) {
    if (absl::StartsWith(line, "!")) {
      result->complaints.push_back(line.substr(1));
    } else {
      result->recordings.push_back(std::move(line));
    }
  }
}

// A name without % is the command's alone in this run; another run may have taken it meanwhile.
void DropReplaced(const std::string& output_template, LaunchResult* result) {
  if (absl::StrContains(output_template, '%') || !IsOfAnotherProcess(output_template, result->pid)) return;
  if (std::erase(result->recordings, output_template) == 0) return;
  result->complaints.push_back(absl::StrCat("another run of nodeleak has replaced the recording ", output_template,
                                            " of process ", result->pid, "; with %p in --output each has its own"));
}

constexpr const char* kElsewhere = "; choose another place with --output=PATH";

// Names with % become known in the process only; the shim says there what is in its way.
absl::Status CheckOutput(const std::string& output_template) {
  std::string folder = output_template.substr(0, output_template.rfind('/'));
  if (absl::StrContains(folder, '%')) return absl::OkStatus();
  if (folder.empty()) folder = "/";
  if (access(folder.c_str(), W_OK | X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write a recording into ", folder, ": ", strerror(errno), kElsewhere));
  }
  if (absl::StrContains(output_template, '%')) return absl::OkStatus();
  if (absl::Status status = recording::CheckReplaceable(output_template); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("cannot write the recording: ", status.message(), kElsewhere));
  }
  return absl::OkStatus();
}

absl::Status Preflight(const LaunchOptions& options) {
  if (options.command.empty()) return absl::InvalidArgumentError("there is no command to run");
  absl::StatusOr<std::string> program = FindProgram(options.command[0]);
  if (!program.ok()) return program.status();
  if (absl::Status status = CheckPreloadable(*program); !status.ok()) return status;
  return CheckOutput(options.output_template);
}

}  // namespace

absl::StatusOr<LaunchResult> Launch(const LaunchOptions& options) {
  if (absl::Status status = Preflight(options); !status.ok()) return status;
  absl::StatusOr<Index> index = Index::Create();
  if (!index.ok()) return index.status();

  SignalState signals;
  Witness witness(signals.waited());
  absl::StatusOr<pid_t> pid = Start(options, *index, signals);
  if (!pid.ok()) return pid.status();
  LaunchResult result;
  std::function<void()> look;
  if (options.look) {
    look = [&] {
      SplitIndex(index->Read(), &result);
      options.look(result.recordings);
    };
  }
  siginfo_t ended = WaitForEnd(*pid, signals, witness, look);
  result.pid = *pid;
  SplitIndex(index->Read(), &result);
  if (ended.si_code == CLD_EXITED) {
    result.exit_code = ended.si_status;
  } else {
    result.end_signal = ended.si_status;
  }
  for (const std::string& recording : result.recordings)
    WriteEnd(recording, result.pid, result.end_signal != 0 ? -1 : result.exit_code, result.end_signal);
  DropReplaced(options.output_template, &result);
  waitpid(*pid, nullptr, 0);
  return result;
}

absl::StatusOr<std::string> FindShim() {
  char self[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", self, sizeof self);
  if (length <= 0) return absl::InternalError(absl::StrCat("cannot read /proc/self/exe: ", strerror(errno)));
  std::string folder(self, static_cast<size_t>(length));
  folder.resize(folder.rfind('/'));
  for (const char* place : {"/libnodeleak-preload.so", "/../lib/nodeleak/libnodeleak-preload.so"}) {
    char* real = realpath(absl::StrCat(folder, place).c_str(), nullptr);
    if (real == nullptr) continue;
    std::string found = real;
    free(real);
    return found;
  }
  return absl::NotFoundError(absl::StrCat("cannot find libnodeleak-preload.so beside ", folder,
                                          "/nodeleak or in ../lib/nodeleak; build or install nodeleak again"));
}

void EndBySignal(int signal_number) {
  rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  signal(signal_number, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal_number);
  sigprocmask(SIG_UNBLOCK, &only, nullptr);
  raise(signal_number);
}

}  // namespace nodeleak::tracer
