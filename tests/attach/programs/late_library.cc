// A library that is loaded while the program is recorded. It calls malloc by its own link.
#include <stdlib.h>

extern "C" __attribute__((visibility("default"))) void* late_allocate(size_t bytes) {
  void* block = malloc(bytes);
  __asm__ volatile("" : "+r"(block));  // not a tail call: a frame of its own
  return block;
}
