#include "tracer/borrow_thread.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"
#include "tracer/remote_stub.h"
#include "tracer/remote_unwind.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatienceToStop(300);
constexpr milliseconds kNap(2);
constexpr uint64_t kStackForCalls = 64 * 1024;  // dlopen takes some ten kilobytes

// In which system call a thread sleeps, and how gladly it is borrowed: lower is better. A thread that waits for a lock
// or a condition does nothing else; the one in the event loop has work to do soon.
struct SleepRow {
  long number;
  int cost, cost_of_main;
};
constexpr SleepRow kSleeps[] = {
    {SYS_futex, 0, 5},
    {SYS_epoll_wait, 1, 3},
    {SYS_epoll_pwait, 1, 3},
    {SYS_epoll_pwait2, 1, 3},
    {SYS_poll, 4, 4},
    {SYS_ppoll, 4, 4},
    {SYS_nanosleep, 4, 4},
    {SYS_clock_nanosleep, 4, 4},
    {SYS_read, 4, 4},
    {SYS_select, 4, 4},
    {SYS_pselect6, 4, 4},
    {SYS_accept, 4, 4},
    {SYS_accept4, 4, 4},
    {SYS_recvfrom, 4, 4},
    {SYS_recvmsg, 4, 4},
    {SYS_pause, 4, 4},
    {SYS_rt_sigsuspend, 4, 4},
    {SYS_wait4, 4, 4},
    {SYS_waitid, 4, 4},
    {SYS_rt_sigtimedwait, 4, 4},
    {SYS_restart_syscall, 4, 5},  // one of these, borrowed before
};
constexpr int kCostOfRunning = 9;

bool IsLoopPoll(long number) {
  return number == SYS_epoll_wait || number == SYS_epoll_pwait || number == SYS_epoll_pwait2;
}

struct Candidate {
  pid_t thread;
  int cost;
};

std::vector<Candidate> FindCandidates(pid_t pid, Borrow which, bool also_running) {
  std::vector<Candidate> candidates;
  for (pid_t thread : ReadThreadIds(pid)) {
    const bool is_main = thread == pid;
    if (!which.Allows(thread)) continue;
    // "number arguments... sp pc", "running", or "-1 sp pc" for a stop outside of a system call
    const std::string sleeps_in = ReadProcFile(pid, absl::StrCat("task/", thread, "/syscall"));
    if (sleeps_in.empty()) continue;
    if (isdigit(static_cast<unsigned char>(sleeps_in[0])) == 0) {
      const bool wanted = which.in_compiled_code() || (also_running && !which.in_loop() && !which.in_wait());
      if (wanted) candidates.push_back({thread, kCostOfRunning});
      continue;
    }
    if (which.in_compiled_code()) continue;
    const long number = atol(sleeps_in.c_str());
    if (which.in_wait()) {
      if (number == SYS_futex) candidates.push_back({thread, 0});
      continue;
    }
    if (which.in_loop()) {
      if (IsLoopPoll(number)) candidates.push_back({thread, 0});
      continue;
    }
    for (const SleepRow& row : kSleeps)
      if (row.number == number) candidates.push_back({thread, is_main ? row.cost_of_main : row.cost});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  return candidates;
}

bool HasRoomOnStack(pid_t pid, const user_regs_struct& registers) {
  for (const Mapping& mapping : ReadMappings(pid)) {
    if (!mapping.range.Contains(registers.rsp)) continue;
    if (mapping.path == "[stack]") return true;  // the kernel makes it larger as needed
    return registers.rsp - ToNumber(mapping.range.start) > StubStackBytes() + kStackForCalls;
  }
  return false;
}

// glibc before 2.34 has its waits in a library of their own.
const RemoteObject* LibcWith(const RemoteObjects& objects, uint64_t pc) {
  for (const char* library : {"libc.so", "libpthread.so"}) {
    const RemoteObject* object = objects.FindByBaseName(library);
    if (object != nullptr && object->range.Contains(pc)) return object;
  }
  return nullptr;
}

// libc's wait for a condition, at most four functions of V8 (some end in a jump, and are not there), then the builtin.
// Since V8 13 absl's condition variables make the system call, by four functions of their own. A collection in the
// builtin waits, too, but many more functions deep; and a wait for a mutex of libc is no wait for a condition.
bool IsChainOfWait(const RemoteObjects& objects, const std::vector<RemoteFrame>& frames, uint64_t builtin) {
  constexpr size_t kMostOfV8 = 4, kOfAbsl = 4;
  const RemoteObject* libc = frames.empty() ? nullptr : LibcWith(objects, frames.front().pc);
  if (libc == nullptr) return false;
  size_t outside = 0;
  while (outside < frames.size() && libc->range.Contains(frames[outside].pc)) ++outside;
  const auto is = [&](const char* name) {
    const auto symbol = objects.FindSymbol(*libc, name);
    return symbol.has_value() && frames[outside - 1].function == ToNumber(symbol->address);
  };
  if (is("pthread_mutex_lock")) return false;
  const size_t most = std::min(frames.size(), outside + kMostOfV8 + (is("syscall") ? kOfAbsl : 0) + 1);
  return std::any_of(frames.begin() + static_cast<ptrdiff_t>(outside), frames.begin() + static_cast<ptrdiff_t>(most),
                     [builtin](const RemoteFrame& frame) { return frame.function == builtin; });
}

// First every word of the inner stack is looked at: most threads in a futex have no such return address.
bool IsInAtomicsWait(const RemoteMemory& memory, const RemoteObjects& objects, const user_regs_struct& registers,
                     uint64_t builtin) {
  constexpr size_t kWords = 512;
  constexpr uint64_t kMostFunctionBytes = 4096;
  const std::vector<uint64_t> words = memory.ReadWords(static_cast<RemoteAddress>(registers.rsp), kWords);
  return std::any_of(words.begin(), words.end(),
                     [builtin](uint64_t word) { return word > builtin && word < builtin + kMostFunctionBytes; }) &&
         IsChainOfWait(objects, UnwindStack(memory, objects, registers), builtin);
}

// In memory that belongs to no file: not what V8 is made of, but what it has made.
bool IsInCompiledCode(const RemoteMemory& memory, const RemoteObjects& objects, uint64_t pc) {
  const auto& all = objects.all();
  if (std::any_of(all.begin(), all.end(), [pc](const RemoteObject& object) { return object.range.Contains(pc); }))
    return false;
  const std::vector<Mapping> mappings = ReadMappings(memory.pid());
  return std::any_of(mappings.begin(), mappings.end(), [pc](const Mapping& mapping) {
    return mapping.range.Contains(pc) && (mapping.path.empty() || absl::StartsWith(mapping.path, "[anon:"));
  });
}

// Why the stopped thread cannot be taken; empty: it can.
std::string WhyNot(const RemoteMemory& memory, const RemoteObjects& objects, const UnsafeCode& unsafe,
                   const Candidate& candidate, const BorrowedThread& borrowed, Borrow which) {
  const bool in_syscall = static_cast<int64_t>(borrowed.registers.orig_rax) >= 0;
  if (borrowed.thread.pending_signal() != 0) return "a signal was arriving";
  if (candidate.cost != kCostOfRunning && !in_syscall) return "it woke up";
  if (which.in_loop() && !IsLoopPoll(static_cast<long>(borrowed.registers.orig_rax)))
    return "its event loop was at work";
  if (which.in_wait() && (borrowed.registers.orig_rax != SYS_futex ||
                          !IsInAtomicsWait(memory, objects, borrowed.registers, which.wait_builtin())))
    return "it was not in Atomics.wait";
  if (which.in_compiled_code() && !IsInCompiledCode(memory, objects, borrowed.registers.rip))
    return "it was not in compiled JavaScript";
  if (!HasRoomOnStack(memory.pid(), borrowed.registers)) return "its stack is too small";
  const std::string place = unsafe.Find(memory, borrowed.registers);
  return place.empty() ? "" : absl::StrCat("it was inside ", place);
}

}  // namespace

std::vector<pid_t> ThreadsInLoop(pid_t pid) {
  std::vector<pid_t> threads;
  for (pid_t thread : ReadThreadIds(pid))
    if (!FindCandidates(pid, Borrow::InLoop(thread), false).empty()) threads.push_back(thread);
  return threads;
}

std::vector<pid_t> ThreadsThatCompute(pid_t pid) {
  std::vector<pid_t> threads;
  for (pid_t thread : ReadThreadIds(pid))
    if (!FindCandidates(pid, Borrow::InCompiledCode(thread), false).empty()) threads.push_back(thread);
  return threads;
}

std::vector<pid_t> ThreadsInFutex(pid_t pid) {
  std::vector<pid_t> threads;
  for (pid_t thread : ReadThreadIds(pid))
    if (!FindCandidates(pid, Borrow::InWait(thread, 1), false).empty()) threads.push_back(thread);
  return threads;
}

absl::StatusOr<BorrowedThread> BorrowThread(const RemoteMemory& memory, const RemoteObjects& objects,
                                            const UnsafeCode& unsafe, Borrow which, milliseconds patience) {
  const auto begin = steady_clock::now();
  std::string last = "no thread sleeps";
  do {
    const bool also_running = steady_clock::now() - begin > patience * 2 / 3;
    for (const Candidate& candidate : FindCandidates(memory.pid(), which, also_running)) {
      if (objects.IsLoaderBusy()) {
        last = "the dynamic linker is at work";
        break;
      }
      absl::StatusOr<TracedThread> seized = TracedThread::Seize(candidate.thread);
      if (absl::IsNotFound(seized.status())) continue;
      if (!seized.ok()) return seized.status();
      seized->Interrupt();
      if (seized->AwaitStop(kPatienceToStop) != TracedThread::Stop::kStopped) {
        last = "it did not stop: is it frozen, as by docker pause?";
        continue;
      }
      absl::StatusOr<user_regs_struct> registers = seized->ReadRegisters();
      if (!registers.ok()) continue;
      BorrowedThread borrowed = {*std::move(seized), *registers};
      std::string why_not = WhyNot(memory, objects, unsafe, candidate, borrowed, which);
      if (why_not.empty()) return borrowed;
      last = absl::StrCat("thread ", candidate.thread, ": ", why_not);
    }
    std::this_thread::sleep_for(kNap);
  } while (steady_clock::now() - begin < patience);
  return absl::UnavailableError(absl::StrCat("no thread could be borrowed within ", patience.count(),
                                             " ms (the last one, ", last, "); try again"));
}

}  // namespace nodeleak::tracer
