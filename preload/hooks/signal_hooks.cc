#include "preload/hooks/signal_hooks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/futex.h"
#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/process_originals.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {
namespace {

constexpr uint32_t kReachMs = 2000;  // for the loop or JavaScript to come to a safe point
constexpr uint32_t kHandlerMs = 50;  // that the signal handler may hold up the interrupted thread
constexpr uint32_t kDyingMs = 500;   // for another thread's DieOf to be final

// What the program set last, while ours is installed. Two copies: a reader in a signal handler sees a whole one.
struct Replaced {
  int signal;
  uint32_t current;
  struct sigaction program[2];
};
Replaced g_replaced[] = {{SIGTERM}, {SIGINT}, {SIGHUP}};

bool g_started;
bool g_watcher_waits;
uint32_t g_signal;  // arrived and not dealt with; the watcher is rung
uint32_t g_asked;   // 1: V8 is asked to stop at its next step; a futex the handler sleeps on

Replaced* Find(int signal) {
  for (Replaced& replaced : g_replaced)
    if (replaced.signal == signal) return &replaced;
  return nullptr;
}

const struct sigaction& ProgramsAction(const Replaced& replaced) {
  return replaced.program[__atomic_load_n(&replaced.current, __ATOMIC_ACQUIRE)];
}

void Remember(Replaced* replaced, const struct sigaction& action) {
  uint32_t other = 1 - __atomic_load_n(&replaced->current, __ATOMIC_RELAXED);
  replaced->program[other] = action;
  __atomic_store_n(&replaced->current, other, __ATOMIC_RELEASE);
}

void OnSignal(int signal, siginfo_t* info, void* context);

bool IsOurs(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == OnSignal;
}

// node installs its own handler with SA_RESETHAND alone (RegisterSignalHandler in src/node.cc); programs' handlers
// come through libuv with SA_RESTART.
bool IsNodesOwn(const struct sigaction& action) {
  return (action.sa_flags & SA_RESETHAND) != 0 && (action.sa_flags & SA_RESTART) == 0 &&
         v8::IsCodeOfNode(reinterpret_cast<uint64_t>(action.sa_handler));
}
bool WouldDieSilently(const struct sigaction& action) { return action.sa_handler == SIG_DFL || IsNodesOwn(action); }

void RestoreDefault(int signal) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  process_originals().sigaction(signal, &action, nullptr);
}

// What would have happened without us: node's handler, entered with the disposition reset, or death. The watcher comes
// here too, should the isolate's thread not get through.
void DieOf(int signal) {
  static uint32_t dying;
  if (__atomic_exchange_n(&dying, 1u, __ATOMIC_ACQ_REL) != 0) FutexWait(&dying, 1, kDyingMs);
  const Replaced* replaced = Find(signal);
  struct sigaction action = {};
  if (replaced != nullptr) action = ProgramsAction(*replaced);
  RestoreDefault(signal);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  if (action.sa_handler != SIG_DFL) {
    siginfo_t info = {};
    info.si_signo = signal;
    // SA_SIGINFO or not: a handler of one argument ignores the other two.
    action.sa_sigaction(signal, &info, nullptr);
  }
  RawSyscall(SYS_tgkill, RawSyscall(SYS_getpid), RawSyscall(SYS_gettid), signal);
}

void OnSignal(int signal, siginfo_t*, void*) {
  int saved_errno = errno;
  bool can_wait = InRecordedProcess() && __atomic_load_n(&g_watcher_waits, __ATOMIC_ACQUIRE) && IsRecording();
  if (!can_wait) {
    if (InRecordedProcess()) SetEndSignal(signal);
    DieOf(signal);
    return;
  }
  uint32_t nothing = 0;
  __atomic_compare_exchange_n(&g_signal, &nothing, static_cast<uint32_t>(signal), false, __ATOMIC_ACQ_REL,
                              __ATOMIC_ACQUIRE);
  RingWatcher();
  // Without us nothing would run after this instruction. Return only when V8 has been told to stop, so that a program
  // that kills itself does not reach its next line.
  FutexWait(&g_asked, 0, kHandlerMs);
  errno = saved_errno;
}

void Asked() {
  __atomic_store_n(&g_asked, 1u, __ATOMIC_RELEASE);
  FutexWake(&g_asked);
}

// On the watcher thread.
void DealWith(int signal) {
  if (!v8::RequestEndPicture({signal, kReachMs, Asked, DieOf}) && IsRecording()) {
    Guard guard;
    SetGcAtEnd(recording::GcAtEnd::kNotReachable);
    Freeze(recording::FreezeReason::kSignal);
  }
  SetEndSignal(signal);
  DieOf(signal);
}

// Puts ours in the place of a disposition that would kill silently, after the program has set it.
void ReplaceIfDeadly(Replaced* replaced) {
  const auto& originals = process_originals();
  struct sigaction now;
  if (originals.sigaction(replaced->signal, nullptr, &now) != 0 || IsOurs(now) || !WouldDieSilently(now)) return;
  Remember(replaced, now);
  struct sigaction ours = {};
  ours.sa_sigaction = OnSignal;
  ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  originals.sigaction(replaced->signal, &ours, nullptr);
}

// The row of a signal that we look after now; nullptr: hands off.
Replaced* LookedAfter(int signal) {
  if (!__atomic_load_n(&g_started, __ATOMIC_ACQUIRE)) return nullptr;
  Replaced* replaced = Find(signal);
  // A vfork child has its own dispositions but our memory.
  return replaced != nullptr && IsRecording() && InRecordedProcess() ? replaced : nullptr;
}

// signal() and its old relatives: set as asked, answer as if we were not there, then look at what was set.
SignalHandler SetHandler(SignalHandler (*original)(int, SignalHandler), int signal, SignalHandler handler) {
  const Replaced* row = Find(signal);
  SignalHandler programs = row != nullptr ? ProgramsAction(*row).sa_handler : nullptr;
  SignalHandler before = original(signal, handler);
  if (reinterpret_cast<void*>(before) == reinterpret_cast<void*>(OnSignal)) before = programs;
  if (Replaced* replaced = LookedAfter(signal)) {
    int saved_errno = errno;
    ReplaceIfDeadly(replaced);
    errno = saved_errno;
  }
  return before;
}

int SetAction(int signal, const struct sigaction* action, struct sigaction* before) {
  const Replaced* row = Find(signal);
  if (row == nullptr) return process_originals().sigaction(signal, action, before);
  struct sigaction programs = ProgramsAction(*row);
  struct sigaction real_before;
  int result = process_originals().sigaction(signal, action, &real_before);
  if (result != 0) return result;
  if (before != nullptr) *before = IsOurs(real_before) ? programs : real_before;
  Replaced* replaced = action != nullptr ? LookedAfter(signal) : nullptr;
  if (replaced != nullptr) ReplaceIfDeadly(replaced);
  return result;
}

}  // namespace

void StartSignalHooks() {
  // The first process of a container does not die of a signal with default disposition: nothing to wait for.
  if (!v8::RuntimeStarted() || RawSyscall(SYS_getpid) == 1) return;
  __atomic_store_n(&g_started, true, __ATOMIC_RELEASE);
  for (Replaced& replaced : g_replaced) ReplaceIfDeadly(&replaced);  // inherited ones that are ignored stay so
}

void WatcherWait(uint32_t bell, uint32_t timeout_ms) {
  __atomic_store_n(&g_watcher_waits, true, __ATOMIC_RELEASE);
  FutexWait(WatcherBell(), bell, timeout_ms, FutexScope::kShared);  // it is rung from outside, too
  uint32_t signal = __atomic_load_n(&g_signal, __ATOMIC_ACQUIRE);
  if (signal == 0) return;
  DealWith(static_cast<int>(signal));
  // Still here: the program caught it at the last moment.
  __atomic_store_n(&g_asked, 0u, __ATOMIC_RELEASE);
  __atomic_store_n(&g_signal, 0u, __ATOMIC_RELEASE);
}

void RestoreSignalsInForkedChild() {
  for (const Replaced& replaced : g_replaced) {
    struct sigaction now;
    if (process_originals().sigaction(replaced.signal, nullptr, &now) == 0 && IsOurs(now))
      process_originals().sigaction(replaced.signal, &ProgramsAction(replaced), nullptr);
  }
}

}  // namespace nodeleak::preload

using nodeleak::preload::process_originals;
using nodeleak::preload::SetHandler;
using nodeleak::preload::SignalHandler;

NODELEAK_HOOK int sigaction(int signal, const struct sigaction* action, struct sigaction* before) noexcept {
  return nodeleak::preload::SetAction(signal, action, before);
}

NODELEAK_HOOK SignalHandler signal(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().signal, number, handler);
}
NODELEAK_HOOK SignalHandler bsd_signal(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().bsd_signal, number, handler);
}
NODELEAK_HOOK SignalHandler ssignal(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().ssignal, number, handler);
}
NODELEAK_HOOK SignalHandler sysv_signal(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().sysv_signal, number, handler);
}
NODELEAK_HOOK SignalHandler __sysv_signal(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().underscore_sysv_signal, number, handler);
}
NODELEAK_HOOK SignalHandler sigset(int number, SignalHandler handler) noexcept {
  return SetHandler(process_originals().sigset, number, handler);
}
