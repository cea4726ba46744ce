#include "preload/recorder/threads.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>

#include "preload/base/guard.h"
#include "preload/recorder/recorder.h"

namespace nodeleak::preload {
namespace {

using recording::kNoIndex;
using recording::Thread;
using recording::ThreadRole;

// A process that churns threads does not fill the recording with them: those beyond count under the first of their
// pool, or under "unknown".
constexpr uint64_t kMaxThreads = 16'384;

uint32_t CurrentTid() { return static_cast<uint32_t>(RawSyscall(SYS_gettid)); }

void ReadName(uint32_t tid, char (&name)[16]) {
  char path[64] = "/proc/self/task/";
  char digits[12];
  uint32_t length = 0;
  do digits[length++] = static_cast<char>('0' + tid % 10);
  while ((tid /= 10) != 0);
  char* p = path + strlen(path);
  while (length > 0) *p++ = digits[--length];
  strcpy(p, "/comm");
  const long fd = RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char text[sizeof name] = {};
  const long got = RawSyscall(SYS_read, fd, reinterpret_cast<long>(text), sizeof text);
  RawSyscall(SYS_close, fd);
  for (long i = 0; i < got; ++i) {
    if (text[i] == '\n') text[i] = '\0';
  }
  if (got > 0) memcpy(name, text, sizeof name);
  name[sizeof name - 1] = '\0';
}

// A thread that pthread_create made knows its stack; for others (main, raw clone) the maps tell.
// Of a thread that was there before us. glibc keeps the thread's own block, which fs points to, at the upper end of the
// stack's memory, and a guard that cannot be accessed below it; the kernel may show what lies behind it as one mapping
// with it, hundreds of megabytes even.
StackBounds StackMemoryIn(const StackBounds& mapping) {
  constexpr uint64_t kThreadBlock = 2304, kPage = 4096;  // sizeof(struct pthread) of glibc 2.28 to 2.41, and less
  uint64_t block;
  asm("mov %%fs:0, %0" : "=r"(block));
  const uint64_t end = (block + kThreadBlock + kPage - 1) & ~(kPage - 1);
  if (block < mapping.low || end > mapping.high) return {0, 0};  // the main thread, or somebody else's stack
  return {mapping.low, end};
}

void FindOwnStack(bool from_pthread_create, ThreadState* state) {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  pthread_attr_t attributes;
  if (from_pthread_create && pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* start = nullptr;
    size_t bytes = 0;
    const bool known = pthread_attr_getstack(&attributes, &start, &bytes) == 0;
    pthread_attr_destroy(&attributes);
    const uint64_t end = reinterpret_cast<uint64_t>(start) + bytes;
    state->bounds = state->memory = {reinterpret_cast<uint64_t>(start), end};
    if (known && here < end) return;
  }
  const StackBounds mapping = FindMappingAround(here);
  state->bounds = {here, mapping.high};
  state->memory = StackMemoryIn(mapping);
}

}  // namespace

bool Threads::Attach(RecordingFile* file) {
  start_ns_ = file->header()->start_monotonic_ns;
  threads_.Attach(file, recording::TableId::kThreads, 128);
  return threads_.Reserve(1);
}

void Threads::Release() {
  threads_ = {};
  workers_ = 0;
  overflow_worker_ = recording::kNoIndex;
}

uint32_t Threads::Register(const Thread& thread) {
  if (!lock_.TryLock()) return kNoIndex;
  const uint32_t index = threads_.count() < kMaxThreads ? threads_.Append(thread) : kNoIndex;
  lock_.Unlock();
  return index;
}

uint32_t Threads::WillStart(uint64_t start_routine, uint32_t creation_stack) {
  Thread thread = {};
  thread.creation_stack = creation_stack;
  thread.start_routine = start_routine;
  thread.start_ns = Now();
  return Register(thread);
}

uint32_t Threads::GroupOf(uint32_t index) const {
  if (index == kNoIndex) return kNoIndex;
  const Thread& thread = threads_[index];
  if (thread.creation_stack == kNoIndex || thread.creation_stack == 0) return index;
  for (uint32_t i = 0; i < index; ++i) {
    const Thread& other = threads_[i];
    if (other.creation_stack == thread.creation_stack && other.start_routine == thread.start_routine &&
        other.worker_number == 0) {
      return i;
    }
  }
  return index;
}

ThreadState* Threads::TakeState(bool from_pthread_create) {
  ThreadState* state = nullptr;
  if (lock_.TryLock()) {
    state = free_states_;
    if (state != nullptr) free_states_ = state->next_free;
    lock_.Unlock();
  }
  if (state == nullptr) state = static_cast<ThreadState*>(MapMemory(sizeof(ThreadState)));
  if (state == nullptr) return nullptr;
  state->recording = RecordingNumber();
  state->stack.remembered = 0;
  state->known.Forget();
  FindOwnStack(from_pthread_create, state);
  constexpr uint64_t kMostGrowth = 64u << 20;
  state->lowest = from_pthread_create ? state->bounds.low : state->bounds.low - kMostGrowth;
  return state;
}

void Threads::Started(uint32_t index) {
  ThreadState* state = TakeState(true);
  if (state == nullptr) return;
  state->thread = index;
  state->stack_thread = GroupOf(index);
  state->counts_alone = false;
  if (index != kNoIndex) {
    Thread& thread = threads_[index];
    thread.tid = CurrentTid();
    thread.stack_start = state->memory.low;
    thread.stack_end = state->memory.high;
    ReadName(thread.tid, thread.name);
  }
  t_locals.state = state;
}

ThreadState* Threads::MakeState() {
  ThreadState* state = t_locals.state;  // of an earlier recording: its bounds still hold, its indices do not
  if (state == nullptr) state = TakeState(false);
  if (state == nullptr) return nullptr;
  state->recording = RecordingNumber();
  state->stack.remembered = 0;
  state->known.Forget();
  Thread thread = {};
  thread.creation_stack = kNoIndex;
  thread.tid = CurrentTid();
  thread.start_ns = Now();
  thread.stack_start = state->memory.low;
  thread.stack_end = state->memory.high;
  if (thread.tid == static_cast<uint32_t>(RawSyscall(SYS_getpid)))
    thread.role = static_cast<uint32_t>(ThreadRole::kMain);
  ReadName(thread.tid, thread.name);
  state->thread = Register(thread);
  state->stack_thread = state->thread;
  state->counts_alone = thread.role == static_cast<uint32_t>(ThreadRole::kMain) && state->thread != kNoIndex;
  t_locals.state = state;
  return state;
}

void Threads::BecameWorker() {
  ThreadState* state = CurrentThreadState();
  if (state == nullptr || state->thread == kNoIndex) return;
  Thread& thread = threads_[state->thread];
  if (thread.worker_number != 0) return;
  thread.role = static_cast<uint32_t>(ThreadRole::kWorker);
  thread.worker_number = __atomic_add_fetch(&workers_, 1, __ATOMIC_RELAXED);
  if (thread.worker_number <= kMaxNamedWorkers) {
    state->stack_thread = state->thread;
    state->known.Forget();
    return;
  }
  uint32_t none = kNoIndex;
  __atomic_compare_exchange_n(&overflow_worker_, &none, state->thread, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  state->stack_thread = __atomic_load_n(&overflow_worker_, __ATOMIC_RELAXED);
  state->known.Forget();
}

void Threads::Ending() {
  ThreadState* state = t_locals.state;
  if (state == nullptr) return;
  if (IsRecording() && state->recording == RecordingNumber() && state->thread != kNoIndex)
    threads_[state->thread].end_ns = Now();
  t_locals.state = nullptr;
  if (!lock_.TryLock()) return;  // leaked: less than 1 MiB of address space, once in a very long while
  state->next_free = free_states_;
  free_states_ = state;
  lock_.Unlock();
}

void Threads::RefreshNames() {
  const uint64_t count = threads_.count();
  for (uint32_t i = 0; i < count; ++i) {
    Thread& thread = threads_[i];
    constexpr uint64_t kSettledNs = 2'000'000'000;  // names are given at the start of a thread
    if (thread.end_ns != 0 || thread.tid == 0 || Now() - thread.start_ns > kSettledNs) continue;
    ReadName(thread.tid, thread.name);
  }
}

}  // namespace nodeleak::preload
