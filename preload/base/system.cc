#include "preload/base/system.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/writing_syscall.h"

namespace nodeleak::preload {

__thread ThreadLocals t_locals;

long RawSyscall(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

namespace {
OwnMemory g_own[kMaxOwnMappings];
uint32_t g_own_version;

// From one (start, bytes) to another; false when no slot has the first.
bool ReplaceOwn(uint64_t from_start, const OwnMemory& to) {
  for (OwnMemory& slot : g_own) {
    uint64_t seen = from_start;
    if (__atomic_load_n(&slot.start, __ATOMIC_RELAXED) != from_start) continue;
    if (to.start == 0) __atomic_store_n(&slot.bytes, uint64_t{0}, __ATOMIC_RELAXED);
    if (!__atomic_compare_exchange_n(&slot.start, &seen, to.start, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) continue;
    if (to.start != 0) __atomic_store_n(&slot.bytes, to.bytes, __ATOMIC_RELEASE);
    __atomic_fetch_add(&g_own_version, 1, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}
}  // namespace

const OwnMemory* OwnMappings() { return g_own; }
uint32_t OwnMappingsVersion() { return __atomic_load_n(&g_own_version, __ATOMIC_ACQUIRE); }

namespace {
void* Map(size_t bytes, int flags) {
  long result = RawSyscall(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  if (result < 0 && result > -4096) return nullptr;
  ReplaceOwn(0, {static_cast<uint64_t>(result), bytes});
  return reinterpret_cast<void*>(result);
}
}  // namespace

void* MapMemory(size_t bytes) { return Map(bytes, 0); }
void* MapTouchedMemory(size_t bytes) { return Map(bytes, MAP_POPULATE); }

void UnmapMemory(void* address, size_t bytes) {
  if (address == nullptr) return;
  ReplaceOwn(reinterpret_cast<uint64_t>(address), {0, 0});  // before: afterwards the address may be somebody else's
  RawSyscall(SYS_munmap, reinterpret_cast<long>(address), static_cast<long>(bytes));
}

static uint64_t ReadClock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);  // vDSO: no system call, no errno on success
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t MonotonicNanoseconds() { return ReadClock(CLOCK_MONOTONIC); }
uint64_t CoarseMonotonicNanoseconds() { return ReadClock(CLOCK_MONOTONIC_COARSE); }

MappedText ReadWholeFile(const char* path) {
  long fd = RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {nullptr, 0, 0};
  MappedText text = {nullptr, 0, 256 * 1024};  // size of a /proc file is not known beforehand
  text.data = static_cast<char*>(MapMemory(text.mapped));
  while (text.data != nullptr) {
    long got = RawSyscall(SYS_read, fd, reinterpret_cast<long>(text.data + text.bytes),
                          static_cast<long>(text.mapped - 1 - text.bytes));
    if (got == -EINTR) continue;
    if (got <= 0) break;
    text.bytes += static_cast<size_t>(got);
    if (text.bytes < text.mapped - 1) continue;
    char* larger = static_cast<char*>(MapMemory(text.mapped * 2));
    if (larger == nullptr) break;
    memcpy(larger, text.data, text.bytes);
    UnmapMemory(text.data, text.mapped);
    text.data = larger;
    text.mapped *= 2;
  }
  RawSyscall(SYS_close, fd);
  if (text.data == nullptr) return {nullptr, 0, 0};
  return text;
}

void SayOnce(bool* said, const char* text) {
  if (__atomic_exchange_n(said, true, __ATOMIC_RELAXED)) return;
  char line[512] = "nodeleak: ";
  size_t length = strlen(line);
  for (const char* p = text; *p != '\0' && length < sizeof line - 1; ++p) line[length++] = *p;
  line[length++] = '\n';
  RawWritingSyscall(SYS_write, 2, reinterpret_cast<long>(line), static_cast<long>(length));
}

bool Patience::WaitMore(uint32_t seen) {
  constexpr uint32_t kSpins = 300;
  constexpr uint32_t kYields = 100;
  constexpr uint32_t kMostNaps = 2000;
  constexpr uint64_t kStuckNs = 2'000'000'000;
  constexpr uint64_t kGiveUpNs = 30'000'000'000;
  constexpr long kNapNs = 50'000;
  ++tries_;
  if (tries_ < kSpins) {
    __builtin_ia32_pause();
    return true;
  }
  const uint64_t now = MonotonicNanoseconds();
  if (first_ns_ == 0) first_ns_ = now;
  if (seen != seen_ || since_ns_ == 0) {
    seen_ = seen;
    since_ns_ = now;
    naps_ = 0;
  }
  if (tries_ < kSpins + kYields) {
    RawSyscall(SYS_sched_yield);
    return true;
  }
  ++naps_;
  timespec nap = {0, kNapNs};
  RawSyscall(SYS_nanosleep, reinterpret_cast<long>(&nap), 0);
  const bool stuck = naps_ > kMostNaps && now - since_ns_ > kStuckNs;
  return !stuck && now - first_ns_ < kGiveUpNs;
}

bool SpinLock::TryLock() {
  Patience patience;
  for (;;) {
    uint32_t seen = __atomic_load_n(&word_, __ATOMIC_RELAXED);
    if ((seen & 1) == 0 &&
        __atomic_compare_exchange_n(&word_, &seen, seen + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      return true;
    if (!patience.WaitMore(seen)) return false;
  }
}

}  // namespace nodeleak::preload
