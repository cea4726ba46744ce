// Runs inside node, on any thread, possibly inside free. Never allocates outside the recording or throws.
//
// Array buffers from before the attach. V8's own list of an isolate is told here, buffer by buffer; what is a recorded
// block, or lies in a recorded mapping, is not older. What is freed, or gone at the next telling, is marked.
#pragma once

#include <stdint.h>

#include "recording/layout.h"

namespace nodeleak::preload {

// Only in a recording that began in the middle of the process's life, and knows every block since: not a sampled one.
bool WantsOlderBuffers();

// One telling at a time on a thread, inside a Guard: Begin, Listed for each buffer, End. On the isolate's thread.
void BeginBufferList();
// False: there is no more room, the rest need not be told.
bool BufferListed(uint32_t isolate, uint64_t address, uint64_t bytes);
void EndBufferList(uint32_t isolate, recording::BufferList list);  // its read_ns is now

void ForgetOlderBuffers();  // the recording goes

// A block that the block table does not know is freed. One load when none are listed.
extern uint32_t g_older_buffers __attribute__((visibility("hidden")));  // listed ones
void MarkOlderBufferFreed(uint64_t address);
inline void OlderBufferFreed(uint64_t address) {
  if (__builtin_expect(__atomic_load_n(&g_older_buffers, __ATOMIC_ACQUIRE) != 0, 0)) MarkOlderBufferFreed(address);
}

}  // namespace nodeleak::preload
