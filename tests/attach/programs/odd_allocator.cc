// An allocator for LD_PRELOAD whose malloc begins with a call: its entry cannot be replaced by a jump. It is libc's
// underneath.
#include <stddef.h>

extern "C" {
void* __libc_malloc(size_t);
void __libc_free(void*);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
__attribute__((visibility("default"))) void* odd_allocate(size_t bytes) { return __libc_malloc(bytes); }
__attribute__((visibility("default"))) void free(void* block) { __libc_free(block); }
__attribute__((visibility("default"))) void* calloc(size_t count, size_t bytes) { return __libc_calloc(count, bytes); }
__attribute__((visibility("default"))) void* realloc(void* block, size_t bytes) { return __libc_realloc(block, bytes); }
}

asm(R"(
  .text
  .globl malloc
  .type malloc, @function
malloc:
  push %rax
  call odd_allocate@PLT
  pop %rdx
  ret
  .size malloc, . - malloc
)");
