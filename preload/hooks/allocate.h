// Runs inside node, on any thread. What every hook of a function that allocates or frees does around the original.
//   not recording, or inside another hook: the original, nothing else
//   else: original, then Allocated; Freeing, then original (afterwards the address may be someone else's)
#pragma once

#include <stddef.h>

#include "preload/base/guard.h"
#include "preload/hooks/memory_originals.h"
#include "preload/recorder/recorder.h"

namespace nodeleak::preload {

inline bool Watching() { return IsRecording() && t_locals.depth == 0; }

// `call` returns the new block or nullptr.
template <typename Call>
inline __attribute__((always_inline)) void* Allocate(size_t bytes, size_t alignment, Call call) {
  if (!MemoryOriginalsReady()) return EarlyAllocate(bytes, alignment);
  if (!Watching()) return call(g_memory_originals);
  Guard guard;
  void* address = call(g_memory_originals);
  guard.KeepErrno();
  if (address != nullptr) Allocated(address, bytes);
  return address;
}

template <typename Call>
inline __attribute__((always_inline)) void Release(void* address, Call call) {
  if (address == nullptr || IsEarly(address) || !MemoryOriginalsReady()) return;
  if (!Watching()) return call(g_memory_originals);
  Guard guard;
  Freeing(address);
  call(g_memory_originals);
  guard.KeepErrno();
}

}  // namespace nodeleak::preload
