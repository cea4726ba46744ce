#include "tracer/stopped_world.h"

#include <sched.h>

#include <algorithm>
#include <thread>

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

absl::Status StoppedWorld::StopNewThreads(pid_t pid, Which which, milliseconds limit, size_t* found) {
  std::vector<TracedThread> fresh;
  for (pid_t id : ReadThreadIds(pid)) {
    const bool known = std::any_of(threads_.begin(), threads_.end(),
                                   [id](const StoppedThread& stopped) { return stopped.thread.id() == id; });
    if (known || (which == Which::kThatCompute && ReadThreadState(id) != 'R')) continue;
    absl::StatusOr<TracedThread> thread = TracedThread::Seize(id);
    if (thread.ok()) {
      fresh.push_back(*std::move(thread));
    } else if (!absl::IsNotFound(thread.status())) {
      return thread.status();
    }
  }
  for (const TracedThread& thread : fresh) thread.Interrupt();
  return AwaitStops(std::move(fresh), limit, found);
}

// They come to their stops in any order, each when it gets a processor.
absl::Status StoppedWorld::AwaitStops(std::vector<TracedThread> fresh, milliseconds limit, size_t* found) {
  constexpr milliseconds kPatienceForFirst(500);  // nobody stands still yet
  constexpr microseconds kNap(20);
  const auto begin = steady_clock::now();
  for (auto looked = begin;;) {
    const auto looks = steady_clock::now();
    for (TracedThread& thread : fresh) {
      if (thread.LookForStop() != TracedThread::Stop::kStopped) continue;
      if (!first_stop_.has_value()) first_stop_ = looked;
      threads_.push_back({std::move(thread), {}});
      ++*found;
    }
    fresh.erase(std::remove_if(fresh.begin(), fresh.end(), [](const TracedThread& thread) { return thread.id() == 0; }),
                fresh.end());
    if (fresh.empty()) return absl::OkStatus();
    looked = looks;
    if (looks - first_stop_.value_or(begin) > (first_stop_.has_value() ? limit : kPatienceForFirst)) break;
    std::this_thread::sleep_for(kNap);
  }
  absl::Status status =
      absl::UnavailableError(absl::StrCat("thread ", fresh.front().id(), " did not stop within ", limit.count(),
                                          " ms (it starts a program, waits for a disk or a processor, or is frozen)"));
  for (TracedThread& thread : fresh) thread.LetGoLater();
  return status;
}

// Those that compute first: they may have to wait for a processor, and the others would stand still meanwhile. One that
// sleeps is there at once.
absl::Status StoppedWorld::StopAll(pid_t pid, milliseconds limit) {
  size_t found = 0;
  if (absl::Status status = StopNewThreads(pid, Which::kThatCompute, limit, &found); !status.ok()) return status;
  do {  // a thread may have made another one before it was stopped
    found = 0;
    if (absl::Status status = StopNewThreads(pid, Which::kAll, limit, &found); !status.ok()) return status;
  } while (found != 0);
  for (StoppedThread& stopped : threads_) {
    absl::StatusOr<user_regs_struct> registers = stopped.thread.ReadRegisters();
    if (!registers.ok()) return registers.status();  // killed this very moment
    stopped.registers = *registers;
  }
  return threads_.empty() ? absl::NotFoundError(absl::StrCat("process ", pid, " has ended")) : absl::OkStatus();
}

absl::StatusOr<StoppedWorld> StoppedWorld::Stop(pid_t pid, milliseconds limit, microseconds* in_vain) {
  TracedThread::LetGoOfLatecomers();
  StoppedWorld world;
  const absl::Status status = world.StopAll(pid, limit);
  if (status.ok()) return world;
  *in_vain = world.Release();
  return status;
}

microseconds StoppedWorld::Release() {
  for (StoppedThread& stopped : threads_) stopped.thread.LetGo();
  threads_.clear();
  const auto now = steady_clock::now();
  const auto pause = duration_cast<microseconds>(now - first_stop_.value_or(now));
  urgency_.PutBack();
  return pause;
}

StoppedWorld::~StoppedWorld() {
  if (!threads_.empty()) Release();
}

}  // namespace nodeleak::tracer
