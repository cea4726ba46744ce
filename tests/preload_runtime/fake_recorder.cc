// A recorder that keeps nothing and writes one line for each call to the file named by
// NODELEAK_FAKE_LOG, so that a test sees
// what the hooks and the V8 runtime report, and in which order. Linked with them instead of preload/recorder.
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/signal_hooks.h"
#include "preload/hooks/thread_hooks.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/buffer_lists.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/runtime.h"
#include "preload/v8/script_scopes.h"

namespace nodeleak::preload {
namespace {

bool g_recording;
int g_log = -1;
uint32_t g_isolates;
uint32_t g_threads;
uint32_t g_statistics;
uint32_t g_turns;  // of event loops

__attribute__((format(printf, 1, 2))) void Log(const char* format, ...) {
  if (g_log < 0) return;
  char line[512];
  int length = snprintf(line, sizeof line, "%ld ", RawSyscall(SYS_getpid));
  va_list arguments;
  va_start(arguments, format);
  length += vsnprintf(line + length, sizeof line - static_cast<size_t>(length) - 1, format, arguments);
  va_end(arguments);
  line[length++] = '\n';
  RawSyscall(SYS_write, g_log, reinterpret_cast<long>(line), length);
}

void* Watch(void*) {
  ++t_locals.depth;
  for (;;) WatcherWait(__atomic_load_n(WatcherBell(), __ATOMIC_ACQUIRE), 100);
}

void StartWatcher() {
  ++t_locals.depth;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  pthread_create(&thread, nullptr, Watch, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  --t_locals.depth;
}

__attribute__((constructor)) void Start() {
  const char* path = getenv("NODELEAK_FAKE_LOG");
  if (path == nullptr) return;
  // Only node, as the real start would choose.
  char executable[256] = {};
  if (readlink("/proc/self/exe", executable, sizeof executable - 1) < 0) return;
  if (strstr(executable, "node") == nullptr && getenv("FAKE_ALL") == nullptr) return;
  g_log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  StartProcessHooks();
  StartThreadHooks();
  g_recording = true;
  Log("Start %s", executable);
  const char* gc = getenv("NODELEAK_GC");
  if (!v8::StartRuntime(gc == nullptr || strcmp(gc, "off") != 0)) return;
  StartSignalHooks();
  StartWatcher();
}

}  // namespace

uint32_t RecordingNumber() { return 0; }
bool IsRecording() { return __atomic_load_n(&g_recording, __ATOMIC_RELAXED); }
void Freeze(recording::FreezeReason reason) {
  if (!__atomic_exchange_n(&g_recording, false, __ATOMIC_ACQ_REL)) return;
  Log("Turns %u", __atomic_load_n(&g_turns, __ATOMIC_RELAXED));
  Log("Freeze %u gcs=%u statistics=%u heap=%zu", static_cast<unsigned>(reason), v8::CurrentMajorGcCount(), g_statistics,
      mallinfo2().uordblks + mallinfo2().hblkhd);
}
void Thaw() {
  Log("Thaw");
  __atomic_store_n(&g_recording, true, __ATOMIC_RELEASE);
}
void NoteBeforeEndGc() { Log("NoteBeforeEndGc gcs=%u", v8::CurrentMajorGcCount()); }
void SetGcAtEnd(recording::GcAtEnd state) { Log("SetGcAtEnd %u", static_cast<unsigned>(state)); }
void SetExitCode(int code) { Log("SetExitCode %d", code); }
void SetEndSignal(int signal) { Log("SetEndSignal %d", signal); }
void CollectionBegins() {}
uint32_t ThreadWillStart(uint64_t) { return __atomic_fetch_add(&g_threads, 1u, __ATOMIC_RELAXED); }
void ThreadStarted(uint32_t thread) { Log("ThreadStarted %u", thread); }
void ThreadEnding() { Log("ThreadEnding"); }
uint32_t IsolateRegistered(uint64_t, bool main_isolate) {
  uint32_t isolate = __atomic_fetch_add(&g_isolates, 1u, __ATOMIC_RELAXED);
  Log("IsolateRegistered %u main=%d", isolate, main_isolate);
  return isolate;
}
void IsolateDisposed(uint32_t isolate) { Log("IsolateDisposed %u", isolate); }
void CollectionFinished(const GcEvent& event) {
  // One guard is the callback's own; a second would mean that what the collection frees goes unrecorded.
  if (t_locals.depth != 1) Log("collection with a guard open");
  Log("Gc isolate=%u type=%u ns=%llu", event.isolate, event.v8_type,
      static_cast<unsigned long long>(event.duration_ns));
}
void LoopTurns(uint32_t) { __atomic_fetch_add(&g_turns, 1u, __ATOMIC_RELAXED); }
void HeapStatisticsRead(uint32_t isolate, const HeapStatistics& statistics) {
  ++g_statistics;
  Log("HeapStatistics %u total=%llu used=%llu limit=%llu external=%llu contexts=%llu", isolate,
      static_cast<unsigned long long>(statistics.total), static_cast<unsigned long long>(statistics.used),
      static_cast<unsigned long long>(statistics.limit), static_cast<unsigned long long>(statistics.external),
      static_cast<unsigned long long>(statistics.native_contexts));
}
void HeapUsedAfterCollection(uint32_t, uint64_t, bool) {}
void HeapSpaceRead(uint32_t isolate, const char* name, uint64_t size, uint64_t, uint64_t, uint64_t) {
  Log("HeapSpace %u %s %llu", isolate, name, static_cast<unsigned long long>(size));
}
uint32_t AddGcAnswer(uint32_t) { return recording::kNoIndex; }
void SetGcAnswer(uint32_t, const recording::GcAnswer&) {}
uint32_t* WatcherBell() {
  static uint32_t bell;
  return &bell;
}
void RingWatcher() {
  __atomic_add_fetch(WatcherBell(), 1u, __ATOMIC_RELEASE);
  RawSyscall(SYS_futex, reinterpret_cast<long>(WatcherBell()), FUTEX_WAKE, INT32_MAX);
}
uint32_t g_confirmation;
bool BeginConfirmation(recording::ConfirmationKind) { return true; }
void EndConfirmation(recording::ConfirmationKind, uint32_t) {}
void SetFreePhase(FreePhase) {}
void SetCapability(recording::CapabilityId id, recording::CapabilityState state, const char* why) {
  Log("Capability %u %u %s", static_cast<unsigned>(id), static_cast<unsigned>(state), why);
}
void SetVersions(const char* node_version, const char* v8_version) { Log("Versions %s %s", node_version, v8_version); }
void WillExec() { Log("WillExec"); }
void ExecFailed() { Log("ExecFailed"); }
void ForkedChild() {
  __atomic_store_n(&g_recording, false, __ATOMIC_RELAXED);
  Log("ForkedChild");
}

namespace v8 {
void SetCurrentIsolateGeneration(uint32_t generation) { t_locals.isolate_generation = generation; }
void ReadBufferListIfDue(IsolateRecord*) {}
void ReadBufferListAfterGc(IsolateRecord*) {}
void PrepareScopes() {}
void KeepNotedScopes(IsolateRecord*) {}
void HoldScopesAtEnd(IsolateRecord*) {}
void LetScopesGo() {}
ScopesHold::ScopesHold(IsolateRecord*) {}
ScopesHold::~ScopesHold() = default;
}  // namespace v8

}  // namespace nodeleak::preload
