// Runs inside node, on any thread, possibly inside malloc or a collection. Never allocates, waits or throws.
//
// One stack, both languages: native frames by unwind rules, V8's frames by V8's frame layout, down to _start or the
// thread's start.
//
// A walk is a function of the registers it starts from and of the words of the stack that it reads. So the last walk
// of a thread is remembered with those words, and the next one ends where it meets a remembered frame with the same
// registers from which outwards every word is unchanged: the rest is the same (docs/decisions/0011).
#pragma once

#include <stdint.h>

#include "preload/unwind/walked_frame.h"

namespace nodeleak::preload {

// Frames kept; a deeper stack is cut in the middle and a marker stands there.
inline constexpr uint32_t kMaxDepth = 512;
inline constexpr uint32_t kMaxSlots = kMaxDepth * 4;

// One thread's: zeroed memory at first, then both the last walk's outcome and the next one's memory.
struct WalkedStack {
  WalkedFrame frames[kMaxDepth];  // outermost first
  uint32_t depth;
  bool truncated;
  bool incomplete;  // did not reach the outermost frame
  uint64_t hash;    // of the keys

  // For the next walk: the first `remembered` frames may be met again, under the same epochs and stack.
  uint32_t remembered;
  uint32_t walk_epoch;
  uint32_t gc_epoch;
  uint64_t stack_end;
  StackSlot slots[kMaxSlots];  // of frames, outermost first; slots_end of a frame is where the next one's begin

  // Scratch of a walk: innermost first.
  WalkedFrame inner[kMaxDepth];
  StackSlot inner_slots[kMaxSlots];
};

// Once, when the shim starts. `has_v8` tells whether V8 code may be met.
bool StartStackWalk(bool has_v8);

// From the frame at `frame_address` (__builtin_frame_address(0)) out of the shim, whose frames keep rbp: the registers
// in its caller. pc 0: not within the bounds, the stack cannot be walked.
WalkRegisters FindCaller(uint64_t frame_address, const StackBounds& bounds);
// The calling thread's stack from there on. `bounds` limits what is read.
void WalkStack(const WalkRegisters& caller, const StackBounds& bounds, WalkedStack* stack);
// The same from the caller of this function, out of the shim; `bounds.low` is set to here.
void WalkStack(StackBounds bounds, WalkedStack* stack);

// What words of the stack mean, and keys of the JavaScript heap, may have changed when this has. Of the calling thread.
uint64_t WalkEpoch();
inline uint64_t EpochOf(const WalkedStack& stack) {
  return static_cast<uint64_t>(stack.walk_epoch) << 32 | stack.gc_epoch;
}

// The memory mapping around `address`, and its end: the limit for a thread whose stack is not known otherwise. 0: there
// is none. Reads /proc/thread-self/maps.
StackBounds FindMappingAround(uint64_t address);
uint64_t FindStackEnd(uint64_t address);

// Code went away (dlclose, a worker's code range) or a module was found to be gone: what is known by pc is dropped.
void ForgetUnwindRules();

}  // namespace nodeleak::preload
