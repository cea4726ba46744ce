#include "tracer/witness.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "recording/process.h"

namespace nodeleak::tracer {
namespace {

constexpr int64_t kWaitMs = 100;       // the kernel gives a signal to a group's processes one after the other
constexpr int64_t kStarvedMs = 5'000;  // longest wait for a witness that has something to do and does not run
constexpr int64_t kLookMs = 10;
constexpr int64_t kOldMs = 5'000;  // a report of an earlier signal that nobody asked about

struct Report {
  int signal;
  pid_t sender;
  int64_t time_ms;
};

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

[[noreturn]] void WaitForSignals(const sigset_t& signals, pid_t parent, int reports) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);  // a reader may wait for their end
  for (;;) {
    siginfo_t came;
    if (sigwaitinfo(&signals, &came) < 0) continue;
    Report report = {came.si_signo, came.si_pid, NowMs()};
    ssize_t ignored = write(reports, &report, sizeof report);  // full: then it is not known
    static_cast<void>(ignored);
  }
}

}  // namespace

Witness::Witness(const sigset_t& signals) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return;
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) WaitForSignals(signals, parent, write_end.get());
  if (pid_ > 0) reports_ = std::move(read_end);
}

Witness::~Witness() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool Witness::SawToo(const siginfo_t& signal) const {
  if (pid_ <= 0) return false;
  const int64_t begin = NowMs();
  for (int64_t passed = 0; passed < kStarvedMs; passed = NowMs() - begin) {
    // Asleep it has reported all that it got: looked at before its reports.
    const bool has_told_all = recording::ProcessStateLetter(static_cast<uint32_t>(pid_)) == 'S';
    pollfd waited = {reports_.get(), POLLIN, 0};
    if (poll(&waited, 1, kLookMs) <= 0) {
      if (has_told_all && passed >= kWaitMs) return false;
      continue;
    }
    Report report;
    if (read(reports_.get(), &report, sizeof report) != static_cast<ssize_t>(sizeof report)) return false;
    if (report.signal == signal.si_signo && report.sender == signal.si_pid && report.time_ms > begin - kOldMs)
      return true;
  }
  return false;
}

}  // namespace nodeleak::tracer
