#include "tracer/stopped_world.h"

#include <sched.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

}  // namespace

// While a world is stopped nobody should run instead of us: the threads let go first would, on a busy machine. Refused
// without the right to (CAP_SYS_NICE): then it takes some milliseconds longer.
StoppedWorld::Urgency::Urgency() : before_(sched_getscheduler(0)) {
  sched_param parameters = {};
  parameters.sched_priority = 1;
  raised_ = before_ == SCHED_OTHER && sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameters) == 0;
}

void StoppedWorld::Urgency::PutBack() {
  sched_param parameters = {};
  if (std::exchange(raised_, false)) sched_setscheduler(0, before_, &parameters);
}

absl::Status StoppedWorld::StopNewThreads(pid_t pid, milliseconds limit, size_t* found) {
  std::vector<TracedThread> fresh;
  for (pid_t id : ReadThreadIds(pid)) {
    const bool known = std::any_of(threads_.begin(), threads_.end(),
                                   [id](const StoppedThread& stopped) { return stopped.thread.id() == id; });
    if (known) continue;
    absl::StatusOr<TracedThread> thread = TracedThread::Seize(id);
    if (thread.ok()) {
      fresh.push_back(*std::move(thread));
    } else if (!absl::IsNotFound(thread.status())) {
      return thread.status();
    }
  }
  for (const TracedThread& thread : fresh) thread.Interrupt();
  absl::Status status;
  for (TracedThread& thread : fresh) {
    const auto passed = duration_cast<microseconds>(steady_clock::now() - begin_);
    const auto left = std::max(microseconds(limit) - passed, status.ok() ? microseconds(500) : microseconds(0));
    switch (thread.AwaitStop(left)) {
      case TracedThread::Stop::kEnded:
        break;
      case TracedThread::Stop::kTimeout:
        status = absl::UnavailableError(absl::StrCat("thread ", thread.id(), " did not stop within ", limit.count(),
                                                     " ms (it starts a program, or waits for a disk)"));
        thread.LetGoLater();
        break;
      case TracedThread::Stop::kStopped:
        threads_.push_back({std::move(thread), {}});
        ++*found;
    }
  }
  return status;
}

absl::StatusOr<StoppedWorld> StoppedWorld::Stop(pid_t pid, milliseconds limit) {
  TracedThread::LetGoOfLatecomers();
  StoppedWorld world;
  world.begin_ = steady_clock::now();
  // A thread may have made another one before it was stopped.
  for (size_t found = 1; found != 0;) {
    found = 0;
    if (absl::Status status = world.StopNewThreads(pid, limit, &found); !status.ok()) return status;
  }
  for (StoppedThread& stopped : world.threads_) {
    absl::StatusOr<user_regs_struct> registers = stopped.thread.ReadRegisters();
    if (!registers.ok()) return registers.status();  // killed this very moment
    stopped.registers = *registers;
  }
  if (world.threads_.empty()) return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  return world;
}

microseconds StoppedWorld::Release() {
  for (StoppedThread& stopped : threads_) stopped.thread.LetGo();
  threads_.clear();
  const auto pause = duration_cast<microseconds>(steady_clock::now() - begin_);
  urgency_.PutBack();
  return pause;
}

StoppedWorld::~StoppedWorld() {
  if (!threads_.empty()) Release();
}

}  // namespace nodeleak::tracer
