// Runs inside node, on any thread. The operators new and delete, where an allocator has its own: see new_originals.h.
// Everywhere else each is a jump to what would have been called without us, so that no frame of ours is in the way of
// an exception or of a handler that jumps.
#include <stdlib.h>

#include "preload/base/guard.h"
#include "preload/hooks/allocate.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/new_originals.h"
#include "preload/hooks/process_originals.h"

using namespace nodeleak::preload;

namespace {

// For an allocator's operator that must not throw through our frame: its own variant that returns nullptr.
constexpr char kNothrow = 0;

// A program in C whose plugin brings libstdc++ along: what libstdc++'s operators do.
void* FromMalloc(size_t bytes, size_t alignment) {
  if (bytes == 0) bytes = 1;
  if (alignment == 0) return malloc(bytes);
  return aligned_alloc(alignment, (bytes + alignment - 1) & ~(alignment - 1));
}

template <typename Function>
bool Recorded(const NewOriginal<Function>& original) {
  return MemoryOriginalsReady() && original.allocates && Watching();
}

}  // namespace

// The one that throws calls the one that does not; when that fails, itself, to throw or to call the program's handler.
#define NEW(symbol, alignment, parameters, arguments, quiet, ...)                                                      \
  NODELEAK_HOOK void* symbol parameters {                                                                              \
    if (Recorded(g_new_originals.quiet)) {                                                                             \
      void* address =                                                                                                  \
          Allocate(bytes, alignment, [=](const MemoryOriginals&) { return g_new_originals.quiet.call(__VA_ARGS__); }); \
      if (address != nullptr) return address;                                                                          \
    }                                                                                                                  \
    if (g_new_originals.symbol.call != nullptr) return g_new_originals.symbol.call arguments;                          \
    void* address = FromMalloc(bytes, alignment);                                                                      \
    if (address == nullptr) abort(); /* std::bad_alloc, of a C++ that we cannot see */                                 \
    return address;                                                                                                    \
  }
NEW(_Znwm, 0, (size_t bytes), (bytes), _ZnwmRKSt9nothrow_t, bytes, &kNothrow)
NEW(_Znam, 0, (size_t bytes), (bytes), _ZnamRKSt9nothrow_t, bytes, &kNothrow)
NEW(_ZnwmSt11align_val_t, align, (size_t bytes, size_t align), (bytes, align), _ZnwmSt11align_val_tRKSt9nothrow_t,
    bytes, align, &kNothrow)
NEW(_ZnamSt11align_val_t, align, (size_t bytes, size_t align), (bytes, align), _ZnamSt11align_val_tRKSt9nothrow_t,
    bytes, align, &kNothrow)
#undef NEW

#define NEW_NOTHROW(symbol, alignment, parameters, arguments)                                         \
  NODELEAK_HOOK void* symbol parameters {                                                             \
    if (Recorded(g_new_originals.symbol))                                                             \
      return Allocate(bytes, alignment,                                                               \
                      [=](const MemoryOriginals&) { return g_new_originals.symbol.call arguments; }); \
    if (g_new_originals.symbol.call != nullptr) return g_new_originals.symbol.call arguments;         \
    return FromMalloc(bytes, alignment);                                                              \
  }
NEW_NOTHROW(_ZnwmRKSt9nothrow_t, 0, (size_t bytes, Nothrow tag), (bytes, tag))
NEW_NOTHROW(_ZnamRKSt9nothrow_t, 0, (size_t bytes, Nothrow tag), (bytes, tag))
NEW_NOTHROW(_ZnwmSt11align_val_tRKSt9nothrow_t, align, (size_t bytes, size_t align, Nothrow tag), (bytes, align, tag))
NEW_NOTHROW(_ZnamSt11align_val_tRKSt9nothrow_t, align, (size_t bytes, size_t align, Nothrow tag), (bytes, align, tag))
#undef NEW_NOTHROW

#define DELETE(symbol, parameters, arguments)                                                          \
  NODELEAK_HOOK void symbol parameters {                                                               \
    if (Recorded(g_new_originals.symbol))                                                              \
      return Release(address, [=](const MemoryOriginals&) { g_new_originals.symbol.call arguments; }); \
    if (g_new_originals.symbol.call != nullptr) return g_new_originals.symbol.call arguments;          \
    free(address);                                                                                     \
  }
DELETE(_ZdlPv, (void* address), (address))
DELETE(_ZdaPv, (void* address), (address))
DELETE(_ZdlPvm, (void* address, size_t bytes), (address, bytes))
DELETE(_ZdaPvm, (void* address, size_t bytes), (address, bytes))
DELETE(_ZdlPvRKSt9nothrow_t, (void* address, Nothrow tag), (address, tag))
DELETE(_ZdaPvRKSt9nothrow_t, (void* address, Nothrow tag), (address, tag))
DELETE(_ZdlPvSt11align_val_t, (void* address, size_t align), (address, align))
DELETE(_ZdaPvSt11align_val_t, (void* address, size_t align), (address, align))
DELETE(_ZdlPvmSt11align_val_t, (void* address, size_t bytes, size_t align), (address, bytes, align))
DELETE(_ZdaPvmSt11align_val_t, (void* address, size_t bytes, size_t align), (address, bytes, align))
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t, (void* address, size_t align, Nothrow tag), (address, align, tag))
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t, (void* address, size_t align, Nothrow tag), (address, align, tag))
#undef DELETE
