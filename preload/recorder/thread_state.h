// Runs inside node, on the thread it belongs to. Mapped memory, made at the thread's first recorded event and used
// again by later threads.
#pragma once

#include <stdint.h>

#include "preload/unwind/known_stacks.h"
#include "preload/unwind/stack_walk.h"
#include "preload/v8/js_frames.h"

namespace nodeleak::preload {

struct ThreadState {
  ThreadState* next_free;
  uint32_t recording;     // RecordingNumber() that the indices belong to
  uint32_t thread;        // Thread index in the recording; kNoIndex when the table is full
  uint32_t stack_thread;  // the Thread that its stacks are counted under
  bool counts_alone;      // the main thread: no other one is counted under the same
  StackBounds bounds;
  StackBounds memory;  // all of the stack; {0, 0}: not known, or the main thread's, which grows
  uint64_t lowest;     // below it is another stack; the main thread's own one grows
  WalkedStack stack;
  KnownStacks known;  // Stacks counted under stack_thread
  v8::ResolveBuffer resolve;
};

// The calling thread's; nullptr when it cannot be had (the event goes to stack "unknown").
ThreadState* CurrentThreadState();

}  // namespace nodeleak::preload
