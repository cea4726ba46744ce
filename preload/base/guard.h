// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// The per-thread state of the shim and the guard that every hook opens. All of it is static TLS of a few bytes (node
// starts a thread with a 32 KiB stack, where large TLS fails); anything bigger hangs off a pointer into mapped memory.
#pragma once

#include <errno.h>
#include <stdint.h>

namespace nodeleak::preload {

struct ThreadState;  // recorder/thread_state.h: mapped memory, made at a thread's first recorded event

struct ThreadLocals {
  uint32_t depth;  // hooks entered on this thread
  uint32_t isolate_generation;
  uint32_t gc_epoch;    // counts up when a collection of this thread's isolate begins or ends, and with its isolate
  bool watches_gc;      // gc_epoch tells of all collections, and none is under way
  uint32_t free_phase;  // recorder/confirmation.h
  uint32_t frees_seen;  // the same
  // --sample, recorder/sampler.h
  uint32_t sample_rate;  // that bytes_to_sample was drawn for
  int64_t bytes_to_sample;
  uint64_t random;
  ThreadState* state;
};
extern __thread ThreadLocals t_locals __attribute__((tls_model("initial-exec"), visibility("hidden")));

// Re-entry depth; saves and restores errno. Only the outermost hook of a thread records: what the allocator, V8 or we
// ourselves do inside is part of it.
class Guard {
 public:
  Guard() : errno_(errno) { ++t_locals.depth; }
  ~Guard() {
    --t_locals.depth;
    errno = errno_;
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  bool outermost() const { return t_locals.depth == 1; }
  // The hooked call's own errno is what the program must see: call it after the real function.
  void KeepErrno() { errno_ = errno; }

 private:
  int errno_;
};

}  // namespace nodeleak::preload
