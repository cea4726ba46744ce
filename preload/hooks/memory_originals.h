// Runs inside node, on any thread, from the very first allocation of the process on. The allocator and mapping
// functions behind the hooks: the next library's (a preloaded jemalloc, say) or libc's, found once by dlsym(RTLD_NEXT).
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

namespace nodeleak::preload {

// One row per function: member, symbol, type. A member is nullptr where nobody defines the function (free_sized before
// glibc 2.43, say). Those are last: a dlsym that fails allocates its message, from an allocator preloaded before us,
// whose start calls our mmap while we are still here.
#define NODELEAK_MEMORY_ORIGINALS(ROW)                               \
  ROW(malloc, "malloc", void*(size_t))                               \
  ROW(calloc, "calloc", void*(size_t, size_t))                       \
  ROW(realloc, "realloc", void*(void*, size_t))                      \
  ROW(reallocarray, "reallocarray", void*(void*, size_t, size_t))    \
  ROW(free, "free", void(void*))                                     \
  ROW(posix_memalign, "posix_memalign", int(void**, size_t, size_t)) \
  ROW(aligned_alloc, "aligned_alloc", void*(size_t, size_t))         \
  ROW(memalign, "memalign", void*(size_t, size_t))                   \
  ROW(valloc, "valloc", void*(size_t))                               \
  ROW(pvalloc, "pvalloc", void*(size_t))                             \
  ROW(mmap, "mmap", void*(void*, size_t, int, int, int, off_t))      \
  ROW(mmap64, "mmap64", void*(void*, size_t, int, int, int, off_t))  \
  ROW(munmap, "munmap", int(void*, size_t))                          \
  ROW(mremap, "mremap", void*(void*, size_t, size_t, int, ...))      \
  ROW(mprotect, "mprotect", int(void*, size_t, int))                 \
  ROW(pkey_mprotect, "pkey_mprotect", int(void*, size_t, int, int))  \
  ROW(brk, "brk", int(void*))                                        \
  ROW(sbrk, "sbrk", void*(intptr_t))                                 \
  ROW(dlclose, "dlclose", int(void*))                                \
  ROW(free_sized, "free_sized", void(void*, size_t))                 \
  ROW(free_aligned_sized, "free_aligned_sized", void(void*, size_t, size_t))

struct MemoryOriginals {
#define ROW(member, symbol, ...)     \
  using member##_type = __VA_ARGS__; \
  member##_type* member;
  NODELEAK_MEMORY_ORIGINALS(ROW)
#undef ROW
};

extern MemoryOriginals g_memory_originals __attribute__((visibility("hidden")));
extern uint32_t g_memory_originals_state
    __attribute__((visibility("hidden")));  // 0 not begun, 1 being found, 2 complete

// True when the originals may be called. False only while they are being found on this very thread: dlsym allocates.
bool FindMemoryOriginals();
inline bool MemoryOriginalsReady() {
  return __builtin_expect(__atomic_load_n(&g_memory_originals_state, __ATOMIC_ACQUIRE) == 2, 1) ||
         FindMemoryOriginals();
}

// Serves the allocations of dlsym itself from a small static buffer; never freed.
void* EarlyAllocate(size_t bytes, size_t alignment);
bool IsEarly(const void* address);
size_t EarlyBytes(const void* address);  // what was asked for

}  // namespace nodeleak::preload
