#include "tracer/traced_thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr microseconds kNap(20);
constexpr microseconds kPatienceOfLetGo(500'000);

int EventOf(int status) { return status >> 16; }

// A thread that ends cannot be seized, and the kernel says "not permitted" then.
bool IsEnding(pid_t thread) {
  const char state = ReadThreadState(thread);
  return state == 'X' || state == 'Z';
}

std::vector<pid_t>& Latecomers() {
  static std::vector<pid_t> threads;
  return threads;
}

}  // namespace

absl::StatusOr<TracedThread> TracedThread::Seize(pid_t thread) {
  std::vector<pid_t>& latecomers = Latecomers();
  const auto still_ours = std::find(latecomers.begin(), latecomers.end(), thread);
  if (still_ours != latecomers.end()) {
    latecomers.erase(still_ours);
    return TracedThread(thread);
  }
  if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0) return TracedThread(thread);
  const int error = errno;
  if (error == ESRCH || IsEnding(thread)) return absl::NotFoundError(absl::StrCat("thread ", thread, " has ended"));
  return absl::PermissionDeniedError(
      absl::StrCat("cannot seize thread ", thread, ": ", strerror(error), " (is a debugger attached?)"));
}

TracedThread::TracedThread(TracedThread&& other) noexcept
    : thread_(std::exchange(other.thread_, 0)), stopped_(other.stopped_), pending_signal_(other.pending_signal_) {}

TracedThread& TracedThread::operator=(TracedThread&& other) noexcept {
  LetGo();
  thread_ = std::exchange(other.thread_, 0);
  stopped_ = other.stopped_;
  pending_signal_ = other.pending_signal_;
  return *this;
}

TracedThread::~TracedThread() { LetGo(); }

void TracedThread::Interrupt() const { ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr); }

void TracedThread::NoteStop(int status) {
  stopped_ = true;
  // Without an event it is about to take a signal: that must not be lost.
  pending_signal_ = EventOf(status) == 0 ? WSTOPSIG(status) : 0;
}

std::optional<TracedThread::Stop> TracedThread::LookForStop() {
  int status;
  const pid_t got = waitpid(thread_, &status, __WALL | WNOHANG);
  if (got == 0) return std::nullopt;
  if (got == thread_ && WIFSTOPPED(status)) {
    NoteStop(status);
    return Stop::kStopped;
  }
  thread_ = 0;
  return Stop::kEnded;
}

// It sleeps between two looks: the thread may need this very processor to come to its stop.
TracedThread::Stop TracedThread::AwaitStop(microseconds patience) {
  const auto begin = steady_clock::now();
  for (;;) {
    if (const std::optional<Stop> stop = LookForStop(); stop.has_value()) return *stop;
    if (steady_clock::now() - begin > patience) return Stop::kTimeout;
    std::this_thread::sleep_for(kNap);
  }
}

absl::StatusOr<user_regs_struct> TracedThread::ReadRegisters() const {
  user_regs_struct registers;
  if (ptrace(PTRACE_GETREGS, thread_, nullptr, &registers) == 0) return registers;
  return absl::UnavailableError(absl::StrCat("cannot read the registers of thread ", thread_, ": ", strerror(errno)));
}

absl::Status TracedThread::WriteRegisters(const user_regs_struct& registers) const {
  if (ptrace(PTRACE_SETREGS, thread_, nullptr, &registers) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot set the registers of thread ", thread_, ": ", strerror(errno)));
}

absl::Status TracedThread::Continue(int signal) {
  stopped_ = false;
  pending_signal_ = 0;
  if (ptrace(PTRACE_CONT, thread_, nullptr, signal) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot let thread ", thread_, " run: ", strerror(errno)));
}

TracedThread::Event TracedThread::Poll(int* signal) {
  int status;
  const pid_t got = waitpid(thread_, &status, __WALL | WNOHANG);
  if (got == 0) return Event::kNone;
  if (got != thread_ || !WIFSTOPPED(status)) {
    thread_ = 0;
    return Event::kEnded;
  }
  stopped_ = true;
  *signal = WSTOPSIG(status);
  if (EventOf(status) == 0) return Event::kSignal;
  return EventOf(status) == PTRACE_EVENT_STOP && *signal != SIGTRAP ? Event::kGroupStop : Event::kOther;
}

void TracedThread::StayStopped() const { ptrace(PTRACE_LISTEN, thread_, nullptr, nullptr); }

void TracedThread::LetGo() {
  if (thread_ == 0) return;
  if (!stopped_) {
    Interrupt();
    const Stop stop = AwaitStop(kPatienceOfLetGo);
    if (stop == Stop::kTimeout) LetGoLater();
    if (stop != Stop::kStopped) return;
  }
  ptrace(PTRACE_DETACH, thread_, nullptr, pending_signal_);
  thread_ = 0;
}

void TracedThread::LetGoLater() {
  if (thread_ != 0) Latecomers().push_back(thread_);
  thread_ = 0;
}

void TracedThread::LetGoOfLatecomers() {
  std::vector<pid_t>& threads = Latecomers();
  threads.erase(std::remove_if(threads.begin(), threads.end(),
                               [](pid_t id) {
                                 TracedThread thread(id);
                                 const bool late = !thread.LookForStop().has_value();
                                 if (late) thread.thread_ = 0;
                                 return !late;
                               }),
                threads.end());
}

}  // namespace nodeleak::tracer
