#include "preload/hooks/process_hooks.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/child_environment.h"
#include "preload/hooks/process_originals.h"
#include "preload/hooks/signal_hooks.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {
namespace {

long g_recorded_pid;

// V8 is gone by now, or not in a state to be asked: node disposes of its platform before it calls exit().
void Ends(recording::FreezeReason reason, int code) {
  Guard guard;
  if (!InRecordedProcess()) return;  // _exit in a vfork child runs in our memory
  SetExitCode(code & 0xff);          // what the parent's wait will see
  if (IsRecording()) Freeze(reason);
}

MainFunction g_main;

// Before what main left behind is destroyed: a static std::map that grew all the time would be gone otherwise.
int MainAndItsEnd(int count, char** arguments, char** environment) {
  const int code = g_main(count, arguments, environment);
  Ends(recording::FreezeReason::kExitCall, code);
  return code;
}

// Ends that go neither through main nor through the symbol exit: the last thread's, after pthread_exit in main.
void AtLibcExit(int code, void*) { Ends(recording::FreezeReason::kLibcAtExit, code); }

void InForkedChild() {
  Guard guard;
  g_recorded_pid = -1;
  v8::RuntimeForked();
  ForkedChild();
  RestoreSignalsInForkedChild();
}

struct CloneStart {
  CloneFunction function;
  void* argument;
};
int ClonedMain(void* data) {
  CloneStart start = *static_cast<CloneStart*>(data);
  InForkedChild();
  return start.function(start.argument);
}

// The targets of a signal that node takes for its end (Kill in src/node_process_methods.cc).
bool MeansOwnProcess(pid_t pid) { return pid == 0 || pid == -1 || pid == g_recorded_pid || pid == -g_recorded_pid; }

}  // namespace

bool InRecordedProcess() { return g_recorded_pid != 0 && RawSyscall(SYS_getpid) == g_recorded_pid; }

void StartProcessHooks() {
  process_originals();
  g_recorded_pid = RawSyscall(SYS_getpid);
  static bool registered;
  if (__atomic_exchange_n(&registered, true, __ATOMIC_ACQ_REL)) return;
  RememberEnvironmentForChildren();
  on_exit(AtLibcExit, nullptr);
  pthread_atfork(nullptr, nullptr, InForkedChild);
}

}  // namespace nodeleak::preload

using nodeleak::preload::CloneFunction;
using nodeleak::preload::Ends;
using nodeleak::preload::g_main;
using nodeleak::preload::Guard;
using nodeleak::preload::IsRecording;
using nodeleak::preload::MainAndItsEnd;
using nodeleak::preload::MainFunction;
using nodeleak::preload::MeansOwnProcess;
using nodeleak::preload::process_originals;
using nodeleak::preload::VoidFunction;
using nodeleak::preload::v8::RuntimeStarted;
using nodeleak::preload::v8::SeenAfterSignal;
using nodeleak::recording::FreezeReason;

// Called once, by _start, after all constructors. Node ends in its own way (preload/v8/end_of_process.h).
NODELEAK_HOOK int __libc_start_main(MainFunction main, int count, char** arguments, VoidFunction init,
                                    VoidFunction fini, VoidFunction loader_fini, void* stack_end) {
  if (IsRecording() && !RuntimeStarted()) {
    g_main = main;
    main = MainAndItsEnd;
  }
  return process_originals().libc_start_main(main, count, arguments, init, fini, loader_fini, stack_end);
}

NODELEAK_HOOK void exit(int code) noexcept {
  Ends(FreezeReason::kExitCall, code);
  process_originals().exit(code);
  __builtin_unreachable();
}

NODELEAK_HOOK void quick_exit(int code) noexcept {
  Ends(FreezeReason::kExitCall, code);
  process_originals().quick_exit(code);
  __builtin_unreachable();
}

NODELEAK_HOOK void _exit(int code) {
  Ends(FreezeReason::kExitCall, code);
  process_originals().underscore_exit(code);
  __builtin_unreachable();
}

NODELEAK_HOOK void _Exit(int code) noexcept {
  Ends(FreezeReason::kExitCall, code);
  process_originals().underscore_exit(code);
  __builtin_unreachable();
}

NODELEAK_HOOK void abort() noexcept {
  {
    Guard guard;
    if (nodeleak::preload::InRecordedProcess() && nodeleak::preload::IsRecording()) {
      nodeleak::preload::SetEndSignal(SIGABRT);
      nodeleak::preload::Freeze(FreezeReason::kAbort);
    }
  }
  process_originals().abort();
  __builtin_unreachable();
}

// Before node sends itself a signal, it runs what it runs at its end: we have frozen the recording. The signal may have
// been none that ends anything: SIGWINCH, SIGUSR1, a stop.
NODELEAK_HOOK int kill(pid_t pid, int signal) noexcept {
  const int result = process_originals().kill(pid, signal);
  if (signal != 0 && RuntimeStarted() && MeansOwnProcess(pid) && nodeleak::preload::InRecordedProcess())
    SeenAfterSignal();
  return result;
}

// fork() and forkpty() reach us by pthread_atfork; _Fork runs no handlers.
NODELEAK_HOOK pid_t _Fork() noexcept {
  if (process_originals().underscore_fork == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  const bool recorded = nodeleak::preload::InRecordedProcess();  // the child cannot tell: its control page is wiped
  pid_t pid = process_originals().underscore_fork();
  if (pid == 0 && recorded) nodeleak::preload::InForkedChild();
  return pid;
}

// A clone with its own memory is a fork. One that shares ours (a thread, a vfork) records into our tables rightly.
NODELEAK_HOOK int clone(CloneFunction function, void* stack, int flags, void* argument, ...) noexcept {
  va_list rest;
  va_start(rest, argument);
  auto* parent_tid = va_arg(rest, pid_t*);
  void* tls = va_arg(rest, void*);
  auto* child_tid = va_arg(rest, pid_t*);
  va_end(rest);
  if ((flags & CLONE_VM) != 0 || !nodeleak::preload::InRecordedProcess())
    return process_originals().clone(function, stack, flags, argument, parent_tid, tls, child_tid);
  nodeleak::preload::CloneStart start = {function, argument};  // the child has its own copy of this stack
  return process_originals().clone(nodeleak::preload::ClonedMain, stack, flags, &start, parent_tid, tls, child_tid);
}
