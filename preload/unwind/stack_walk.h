// Runs inside node, on any thread, possibly inside malloc or a collection. Never allocates, waits or throws.
//
// One stack, both languages: native frames by unwind rules, V8's frames by V8's frame layout, down to _start or the
// thread's start.
#pragma once

#include <stdint.h>

#include "preload/unwind/walked_frame.h"

namespace nodeleak::preload {

inline constexpr uint32_t kMaxDepth =
    512;  // frames kept; a deeper stack is cut in the middle and a marker stands there

struct WalkedStack {
  WalkedFrame frames[kMaxDepth];
  uint32_t depth;
  bool truncated;
  bool incomplete;  // did not reach the outermost frame
  uint64_t hash;    // of the keys
};

// Once, when the shim starts. `has_v8` tells whether V8 code may be met.
bool StartStackWalk(bool has_v8);

// The calling thread's stack from the first frame outside the shim. `bounds->high` limits what is read; `bounds->low`
// is set to here.
void WalkStack(StackBounds bounds, WalkedStack* stack);

// The end of the memory mapping around `address`: the limit for a thread whose stack is not known otherwise. Reads
// /proc/self/maps.
uint64_t FindStackEnd(uint64_t address);

// After dlclose and when a module was found to be gone.
void ForgetUnwindRules();

}  // namespace nodeleak::preload
