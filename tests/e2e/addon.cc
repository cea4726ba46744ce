// An addon that keeps blocks of the size it is told, each kind of allocation from a function of its own, so that a
// report must name that function.
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/e2e/node_api.h"

namespace {

constexpr size_t kAlignment = 4096;

using Allocate = void* (*)(size_t);

// What escapes the optimizer stays a call of its own, made by the function that the test looks for.
void* Touch(void* block, size_t size) {
  if (block != nullptr && block != MAP_FAILED) memset(block, 0x5a, size);
  asm volatile("" ::: "memory");
  return block;
}

}  // namespace

extern "C" {
__attribute__((noinline)) void* keep_malloc(size_t size) { return Touch(malloc(size), size); }
__attribute__((noinline)) void* keep_calloc(size_t size) { return Touch(calloc(1, size), size); }
__attribute__((noinline)) void* keep_realloc(size_t size) { return Touch(realloc(malloc(size / 3), size), size); }
__attribute__((noinline)) void* keep_reallocarray(size_t size) { return Touch(reallocarray(nullptr, size, 1), size); }
__attribute__((noinline)) void* keep_posix_memalign(size_t size) {
  void* block = nullptr;
  if (posix_memalign(&block, kAlignment, size) != 0) return nullptr;
  return Touch(block, size);
}
__attribute__((noinline)) void* keep_aligned_alloc(size_t size) { return Touch(aligned_alloc(kAlignment, size), size); }
__attribute__((noinline)) void* keep_memalign(size_t size) { return Touch(memalign(kAlignment, size), size); }
__attribute__((noinline)) void* keep_new(size_t size) { return Touch(::operator new(size), size); }
__attribute__((noinline)) void* keep_new_array(size_t size) { return Touch(new char[size], size); }
__attribute__((noinline)) void* keep_mmap(size_t size) {
  return Touch(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size);
}
// A realloc that cannot succeed keeps the block it was given.
__attribute__((noinline)) void* keep_failed_realloc(size_t size) {
  void* block = malloc(size);
  void* volatile moved = realloc(block, SIZE_MAX / 2);
  return Touch(moved != nullptr ? nullptr : block, size);
}
__attribute__((noinline)) void* give_back(size_t size) {
  free(Touch(malloc(size), size));
  free(Touch(realloc(malloc(size), size * 2), size));
  void* mapped = keep_mmap(size);
  munmap(mapped, size);
  return nullptr;
}
// Many blocks, of which every fiftieth stays: the rest is free, and cannot be given back.
void* fragment(size_t size) {
  constexpr size_t kBlocks = 100'000, kOneStays = 50;
  static void* blocks[kBlocks];
  for (void*& block : blocks) block = keep_malloc(size);
  for (size_t i = 0; i < kBlocks; ++i) {
    if (i % kOneStays != 0) free(blocks[i]);
  }
  return nullptr;
}
// What malloc itself says is free.
void* print_free(size_t) {
  printf("%zu\n", mallinfo2().fordblks);
  fflush(stdout);
  return nullptr;
}
}  // extern "C"

namespace {

struct Export {
  const char* name;
  Allocate allocate;
};
Export exports_table[] = {
    {"malloc", keep_malloc},
    {"calloc", keep_calloc},
    {"realloc", keep_realloc},
    {"reallocarray", keep_reallocarray},
    {"posixMemalign", keep_posix_memalign},
    {"alignedAlloc", keep_aligned_alloc},
    {"memalign", keep_memalign},
    {"operatorNew", keep_new},
    {"newArray", keep_new_array},
    {"mmap", keep_mmap},
    {"failedRealloc", keep_failed_realloc},
    {"giveBack", give_back},
    {"fragment", fragment},
    {"printFree", print_free},
};

napi_value Call(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  void* data = nullptr;
  int64_t size = 0;
  napi_get_cb_info(env, info, &count, &argument, nullptr, &data);
  napi_get_value_int64(env, argument, &size);
  void* volatile kept = static_cast<Export*>(data)->allocate(static_cast<size_t>(size));
  (void)kept;  // nothing points to it any more: the program leaks it
  return nullptr;
}

// A block that goes with its JavaScript object, in a finalizer: node calls these on a later turn of the loop.
napi_value External(napi_env env, napi_callback_info info) {
  napi_value result = nullptr;
  napi_create_external(
      env, keep_malloc(static_cast<size_t>(NumberArgument(env, info))), [](napi_env, void* data, void*) { free(data); },
      nullptr, &result);
  return result;
}

// Blocks the thread, by short sleeps, while the first number of an Int32Array is 0; returns how often a signal
// interrupted one.
napi_value SleepWhile(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  void* numbers = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_typedarray_info(env, argument, nullptr, nullptr, &numbers, nullptr, nullptr);
  constexpr timespec kShort = {0, 100'000'000};
  int64_t interrupted = 0;
  while (__atomic_load_n(static_cast<int32_t*>(numbers), __ATOMIC_ACQUIRE) == 0) {
    timespec left = kShort;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) ++interrupted;
  }
  napi_value result = nullptr;
  napi_create_int64(env, interrupted, &result);
  return result;
}

// A realloc that cannot succeed of the block that a typed array begins at; whether the block is where it was.
napi_value FailToGrow(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr, result = nullptr;
  void* block = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_typedarray_info(env, argument, nullptr, nullptr, &block, nullptr, nullptr);
  void* volatile moved = realloc(block, SIZE_MAX / 2);
  napi_create_int64(env, moved == nullptr ? 1 : 0, &result);
  return result;
}

void AddFunction(napi_env env, napi_value exports, const char* name, napi_callback callback, void* data) {
  napi_value function = nullptr;
  napi_create_function(env, name, static_cast<size_t>(-1), callback, data, &function);
  napi_set_named_property(env, exports, name, function);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  for (Export& row : exports_table) AddFunction(env, exports, row.name, Call, &row);
  AddFunction(env, exports, "external", External, nullptr);
  AddFunction(env, exports, "sleepWhile", SleepWhile, nullptr);
  AddFunction(env, exports, "failToGrow", FailToGrow, nullptr);
  return exports;
}
