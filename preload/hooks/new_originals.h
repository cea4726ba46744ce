// Runs inside node, on any thread. The operators new and delete behind the hooks.
//
// libstdc++'s call malloc and free, where the hooks of the malloc family see them. An allocator that is preloaded
// beside us (jemalloc, mimalloc, tcmalloc) brings operators of its own that do not: then these are what is recorded.
#pragma once

#include <stddef.h>

namespace nodeleak::preload {

// What is passed by reference and never looked at.
using Nothrow = const void*;

// One row per operator: its mangled symbol, its type. std::align_val_t is a size_t.
#define NODELEAK_NEW_ORIGINALS(ROW)                                       \
  ROW(_Znwm, void*(size_t))                                               \
  ROW(_Znam, void*(size_t))                                               \
  ROW(_ZnwmSt11align_val_t, void*(size_t, size_t))                        \
  ROW(_ZnamSt11align_val_t, void*(size_t, size_t))                        \
  ROW(_ZnwmRKSt9nothrow_t, void*(size_t, Nothrow))                        \
  ROW(_ZnamRKSt9nothrow_t, void*(size_t, Nothrow))                        \
  ROW(_ZnwmSt11align_val_tRKSt9nothrow_t, void*(size_t, size_t, Nothrow)) \
  ROW(_ZnamSt11align_val_tRKSt9nothrow_t, void*(size_t, size_t, Nothrow)) \
  ROW(_ZdlPv, void(void*))                                                \
  ROW(_ZdaPv, void(void*))                                                \
  ROW(_ZdlPvm, void(void*, size_t))                                       \
  ROW(_ZdaPvm, void(void*, size_t))                                       \
  ROW(_ZdlPvRKSt9nothrow_t, void(void*, Nothrow))                         \
  ROW(_ZdaPvRKSt9nothrow_t, void(void*, Nothrow))                         \
  ROW(_ZdlPvSt11align_val_t, void(void*, size_t))                         \
  ROW(_ZdaPvSt11align_val_t, void(void*, size_t))                         \
  ROW(_ZdlPvmSt11align_val_t, void(void*, size_t, size_t))                \
  ROW(_ZdaPvmSt11align_val_t, void(void*, size_t, size_t))                \
  ROW(_ZdlPvSt11align_val_tRKSt9nothrow_t, void(void*, size_t, Nothrow))  \
  ROW(_ZdaPvSt11align_val_tRKSt9nothrow_t, void(void*, size_t, Nothrow))

template <typename Function>
struct NewOriginal {
  Function* call;  // nullptr in a program without C++; a libstdc++ that comes later, with a plugin, is not found
  bool allocates;  // from the library that also serves malloc: the hook records
};

struct NewOriginals {
#define ROW(symbol, ...) NewOriginal<__VA_ARGS__> symbol;
  NODELEAK_NEW_ORIGINALS(ROW)
#undef ROW
};

extern NewOriginals g_new_originals __attribute__((visibility("hidden")));

// After the originals of the malloc family.
void FindNewOriginals();

}  // namespace nodeleak::preload
