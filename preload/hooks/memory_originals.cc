#include "preload/hooks/memory_originals.h"

#include <dlfcn.h>
#include <sched.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/new_originals.h"

namespace nodeleak::preload {

constinit MemoryOriginals g_memory_originals;
constinit uint32_t g_memory_originals_state;

namespace {

constexpr size_t kEarlyBytes = 64 * 1024;
constexpr size_t kEarlyHeader = 16;  // keeps the size in front of the block
alignas(16) char g_early[kEarlyBytes];
uint64_t g_early_used;

__thread bool t_finding __attribute__((tls_model("initial-exec")));

}  // namespace

bool FindMemoryOriginals() {
  if (t_finding) return false;
  uint32_t not_begun = 0;
  if (!__atomic_compare_exchange_n(&g_memory_originals_state, &not_begun, 1u, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE)) {
    // Another thread finds them (only when threads were made before our start). It needs nothing of us.
    while (__atomic_load_n(&g_memory_originals_state, __ATOMIC_ACQUIRE) != 2) RawSyscall(24 /* sched_yield */);
    return true;
  }
  t_finding = true;
#define ROW(member, symbol, ...) \
  g_memory_originals.member = reinterpret_cast<MemoryOriginals::member##_type*>(dlsym(RTLD_NEXT, symbol));
  NODELEAK_MEMORY_ORIGINALS(ROW)
#undef ROW
  FindNewOriginals();
  t_finding = false;
  __atomic_store_n(&g_memory_originals_state, 2u, __ATOMIC_RELEASE);
  return true;
}

void* EarlyAllocate(size_t bytes, size_t alignment) {
  if (alignment < kEarlyHeader) alignment = kEarlyHeader;
  if (bytes > kEarlyBytes || alignment > kEarlyBytes) return nullptr;
  const uint64_t room = bytes + alignment + kEarlyHeader;
  const uint64_t offset = __atomic_fetch_add(&g_early_used, room, __ATOMIC_RELAXED);
  if (offset + room > kEarlyBytes) return nullptr;
  const uint64_t first = reinterpret_cast<uint64_t>(g_early) + offset + kEarlyHeader;
  const uint64_t address = (first + alignment - 1) & ~(static_cast<uint64_t>(alignment) - 1);
  *reinterpret_cast<size_t*>(address - kEarlyHeader) = bytes;
  return reinterpret_cast<void*>(address);
}

bool IsEarly(const void* address) {
  const char* p = static_cast<const char*>(address);
  return p >= g_early && p < g_early + kEarlyBytes;
}

size_t EarlyBytes(const void* address) {
  return *reinterpret_cast<const size_t*>(static_cast<const char*>(address) - kEarlyHeader);
}

}  // namespace nodeleak::preload
