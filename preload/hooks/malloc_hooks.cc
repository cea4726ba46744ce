// Runs inside node, on any thread. The malloc family. One shape (allocate.h): read one, know all; only the call in the
// middle differs.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/base/guard.h"
#include "preload/hooks/allocate.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/process_originals.h"
#include "preload/recorder/recorder.h"

using namespace nodeleak::preload;

namespace {

// realloc of a block from the early buffer moves it to the real allocator.
void* MoveFromEarly(void* address, size_t bytes) {
  void* moved = malloc(bytes);
  const size_t old = EarlyBytes(address);
  if (moved != nullptr) memcpy(moved, address, old < bytes ? old : bytes);
  return moved;
}

template <typename Call>
inline __attribute__((always_inline)) void* Reallocate(void* address, size_t bytes, Call call) {
  if (!MemoryOriginalsReady()) return EarlyAllocate(bytes, 16);
  if (address != nullptr && IsEarly(address)) return MoveFromEarly(address, bytes);
  if (!Watching()) return call(g_memory_originals);
  Guard guard;
  // Out of the table before the call: the old address may be another thread's the moment it returns.
  RemovedBlock old = {};
  if (address != nullptr) old = TakeForRealloc(address);
  void* moved = call(g_memory_originals);
  guard.KeepErrno();
  if (moved != nullptr) {
    Forget(old);
    Allocated(moved, bytes);
  } else if (bytes == 0) {
    Forget(old);  // glibc: realloc(p, 0) frees p
  } else {
    PutBack(old);
  }
  return moved;
}

}  // namespace

NODELEAK_HOOK void* malloc(size_t bytes) noexcept {
  return Allocate(bytes, 0, [=](const MemoryOriginals& original) { return original.malloc(bytes); });
}

NODELEAK_HOOK void* calloc(size_t count, size_t bytes) {
  return Allocate(count * bytes, 0, [=](const MemoryOriginals& original) { return original.calloc(count, bytes); });
}

NODELEAK_HOOK void* realloc(void* address, size_t bytes) {
  return Reallocate(address, bytes, [=](const MemoryOriginals& original) { return original.realloc(address, bytes); });
}

NODELEAK_HOOK void* reallocarray(void* address, size_t count, size_t bytes) {
  size_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) {
    errno = ENOMEM;
    return nullptr;
  }
  return Reallocate(address, total, [=](const MemoryOriginals& original) {
    return original.reallocarray != nullptr ? original.reallocarray(address, count, bytes)
                                            : original.realloc(address, total);
  });
}

NODELEAK_HOOK void free(void* address) {
  Release(address, [=](const MemoryOriginals& original) { original.free(address); });
}

// Gone from glibc's headers since 2.26, still its alias of free; an allocator preloaded beside us may not have it.
NODELEAK_HOOK void cfree(void* address) { free(address); }

NODELEAK_HOOK void free_sized(void* address, size_t bytes) {
  Release(address, [=](const MemoryOriginals& original) {
    original.free_sized != nullptr ? original.free_sized(address, bytes) : original.free(address);
  });
}

NODELEAK_HOOK void free_aligned_sized(void* address, size_t alignment, size_t bytes) {
  Release(address, [=](const MemoryOriginals& original) {
    original.free_aligned_sized != nullptr ? original.free_aligned_sized(address, alignment, bytes)
                                           : original.free(address);
  });
}

NODELEAK_HOOK int posix_memalign(void** out, size_t alignment, size_t bytes) {
  if (!MemoryOriginalsReady()) {
    *out = EarlyAllocate(bytes, alignment);
    return *out != nullptr ? 0 : ENOMEM;
  }
  if (!Watching()) return g_memory_originals.posix_memalign(out, alignment, bytes);
  Guard guard;
  const int result = g_memory_originals.posix_memalign(out, alignment, bytes);
  guard.KeepErrno();
  if (result == 0 && *out != nullptr) Allocated(*out, bytes);
  return result;
}

NODELEAK_HOOK void* aligned_alloc(size_t alignment, size_t bytes) {
  return Allocate(bytes, alignment,
                  [=](const MemoryOriginals& original) { return original.aligned_alloc(alignment, bytes); });
}

NODELEAK_HOOK void* memalign(size_t alignment, size_t bytes) {
  return Allocate(bytes, alignment,
                  [=](const MemoryOriginals& original) { return original.memalign(alignment, bytes); });
}

NODELEAK_HOOK void* valloc(size_t bytes) {
  return Allocate(bytes, 4096, [=](const MemoryOriginals& original) { return original.valloc(bytes); });
}

NODELEAK_HOOK void* pvalloc(size_t bytes) {
  return Allocate(bytes, 4096, [=](const MemoryOriginals& original) { return original.pvalloc(bytes); });
}
