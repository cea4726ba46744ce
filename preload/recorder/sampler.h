// Runs inside node, on any thread, inside malloc. Never allocates, waits or throws.
//
// --sample: which allocations are recorded at all. Poisson by bytes: on average one sample in 2^rate bytes, wherever
// they fall, so a block is recorded with a probability that only its size decides; a block of 2^rate bytes or more
// always is. What a recorded block stands for is told by its size and rate (recording::SampleWeight).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "preload/base/guard.h"
#include "recording/layout.h"

namespace nodeleak::preload {

extern uint32_t g_sample_rate __attribute__((visibility("hidden")));  // 0: every allocation is recorded

inline uint32_t SampleRate() { return __atomic_load_n(&g_sample_rate, __ATOMIC_RELAXED); }

struct Sampled {
  bool taken;
  uint32_t rate;  // for recording::PackSizeAndGc
};
Sampled SampleSmall(uint64_t bytes, uint32_t rate);

// Called once for each allocation, on its thread.
inline Sampled Sample(uint64_t bytes) {
  const uint32_t rate = SampleRate();
  if (rate == 0 || bytes >> rate != 0) return {true, 0};
  if (t_locals.sample_rate == rate) {
    t_locals.bytes_to_sample -= static_cast<int64_t>(bytes == 0 ? 1 : bytes);
    if (__builtin_expect(t_locals.bytes_to_sample > 0, 1)) return {false, 0};
  }
  return SampleSmall(bytes, rate);
}

// From --sample: 0 is off, recording::kSampleAutomatically adapts, anything else is rounded down to a power of two.
// With each recording, before it begins.
void StartSampling(uint64_t bytes);
bool SamplingIsAutomatic();

// Watcher thread, now and then, when automatic: keeps recording below 2 % of the process's own processor time.
// `recorded` is the number of allocations recorded by chance since the start. Returns the rate as bytes.
uint64_t AdaptSampling(uint64_t recorded);

}  // namespace nodeleak::preload
