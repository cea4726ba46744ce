// Preloaded into a program: counts its allocations, for a test that reads the counter out of its memory.
#include <errno.h>
#include <stddef.h>

#include <atomic>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* block, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

std::atomic<unsigned long> attach_counter_allocations;

void* malloc(size_t bytes) {
  ++attach_counter_allocations;
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  ++attach_counter_allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* block, size_t bytes) {
  if (block == nullptr || bytes != 0) ++attach_counter_allocations;
  return __libc_realloc(block, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  ++attach_counter_allocations;
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** block, size_t alignment, size_t bytes) {
  *block = memalign(alignment, bytes);
  return *block == nullptr ? ENOMEM : 0;
}
}
