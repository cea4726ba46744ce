// Runs inside node, on any thread, possibly inside malloc. Never allocates, throws, or goes through a hooked function:
// raw system calls.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

namespace nodeleak::preload {

// Raw system calls (no errno, no hooks, no cancellation point). Negative results are -errno.
long RawSyscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

// Anonymous zeroed memory outside every allocator; nullptr on failure. Never returned to the system by the shim unless
// unmapped here.
void* MapMemory(size_t bytes);
void* MapTouchedMemory(size_t bytes);  // all of it is about to be used: one call instead of a fault for each page
void UnmapMemory(void* address, size_t bytes);

// What MapMemory has given out: our own share of the process's memory. Slots with 0 bytes are free; beyond
// kMaxOwnMappings at once the others are not listed.
struct OwnMemory {
  uint64_t start, bytes;
};
inline constexpr uint32_t kMaxOwnMappings = 1023;  // and the recording: a power of two in its table
const OwnMemory* OwnMappings();
uint32_t OwnMappingsVersion();  // changes with the list

uint64_t MonotonicNanoseconds();
uint64_t CoarseMonotonicNanoseconds();

// A file read whole into MapMemory memory (NUL-terminated). bytes excludes the NUL. {nullptr, 0} on failure. Free with
// UnmapMemory(data, mapped).
struct MappedText {
  char* data;
  size_t bytes;
  size_t mapped;
};
MappedText ReadWholeFile(const char* path);

// A short sentence to stderr, prefixed "nodeleak: ", at most once for each call site's `said` flag. Only before main():
// later descriptor 2 may be any file of the program's.
void SayOnce(bool* said, const char* text);

// How one of our own locks is waited for: spin, then yield, then nap. The holder waits for nothing but the processor,
// the kernel's lock of the address space and, when the file grows, the disk: a lock that nobody takes or leaves for two
// seconds, in which this thread has looked 2,000 times, will hardly be left again. Where others get it before us (50
// threads that start on two processors) there is no end before half a minute.
class Patience {
 public:
  // `seen`: the lock's count, which changes whenever it is taken or left. False: give up.
  bool WaitMore(uint32_t seen);

 private:
  uint32_t tries_ = 0, naps_ = 0;
  uint32_t seen_ = 0;
  uint64_t since_ns_ = 0, first_ns_ = 0;
};

class SpinLock {
 public:
  bool TryLock();  // false: gave up
  void Unlock() { __atomic_store_n(&word_, __atomic_load_n(&word_, __ATOMIC_RELAXED) + 1, __ATOMIC_RELEASE); }

 private:
  uint32_t word_ = 0;  // times taken and left; odd: held
};

}  // namespace nodeleak::preload
