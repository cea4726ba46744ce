// Preloaded into a program: counts its allocations and frees, for a test that reads the counters out of its memory. A
// realloc is one of both.
#include <errno.h>
#include <stddef.h>

#include <atomic>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* block, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* block);

std::atomic<unsigned long> attach_counter_allocations, attach_counter_frees;

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
  if (block != nullptr) ++attach_counter_frees;
  return __libc_realloc(block, bytes);
}
void free(void* block) {
  if (block != nullptr) ++attach_counter_frees;
  __libc_free(block);
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
