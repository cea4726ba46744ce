#include "preload/recorder/sampler.h"

#include <time.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

constinit uint32_t g_sample_rate;

namespace {

constexpr uint32_t kLeastRate = 5, kMostRate = recording::kMaxSampleRate;
constexpr uint32_t kFirstAutomaticRate = 19;  // 512 KiB
bool g_automatic;
struct Judged {
  uint64_t cpu_ns, recorded;
};
Judged g_judged;  // up to where AdaptSampling has judged

uint64_t ProcessorTime() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t Random() {  // xorshift64*
  uint64_t& state = t_locals.random;
  if (state == 0) state = (MonotonicNanoseconds() ^ reinterpret_cast<uint64_t>(&t_locals)) | 1;
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dull;
}

// ln of a number in (0, 1] given as value / 2^53, by its exponent and the series of atanh: right to 1e-6.
double Log(uint64_t value) {
  const int exponent = 63 - __builtin_clzll(value);
  const double mantissa = static_cast<double>(value) / static_cast<double>(1ull << exponent);  // 1 to 2
  const double z = (mantissa - 1) / (mantissa + 1);
  const double z2 = z * z;
  const double ln_mantissa = 2 * z * (1 + z2 * (1.0 / 3 + z2 * (1.0 / 5 + z2 * (1.0 / 7 + z2 * (1.0 / 9)))));
  constexpr double kLn2 = 0.6931471805599453;
  return ln_mantissa + (exponent - 53) * kLn2;
}

// How many bytes until the next sample: exponentially distributed around 2^rate.
int64_t DrawDistance(uint32_t rate) {
  const uint64_t uniform = (Random() >> 11) + 1;  // 1 to 2^53
  return static_cast<int64_t>(-Log(uniform) * static_cast<double>(1ull << rate)) + 1;
}

}  // namespace

__attribute__((noinline)) Sampled SampleSmall(uint64_t bytes, uint32_t rate) {
  if (t_locals.sample_rate != rate) {  // a new thread or a new rate: the distribution has no memory, so draw anew
    t_locals.sample_rate = rate;
    t_locals.bytes_to_sample = DrawDistance(rate) - static_cast<int64_t>(bytes == 0 ? 1 : bytes);
    if (t_locals.bytes_to_sample > 0) return {false, 0};
  }
  t_locals.bytes_to_sample = DrawDistance(rate);
  return {true, rate};
}

void StartSampling(uint64_t bytes) {
  g_automatic = bytes == recording::kSampleAutomatically;
  g_judged = {ProcessorTime(), 0};
  uint32_t rate = 0;
  if (g_automatic) {
    rate = kFirstAutomaticRate;
  } else if (bytes != 0) {
    rate = 63u - static_cast<uint32_t>(__builtin_clzll(bytes));
    rate = rate < kLeastRate ? kLeastRate : rate > kMostRate ? kMostRate : rate;
  }
  __atomic_store_n(&g_sample_rate, rate, __ATOMIC_RELAXED);
}

bool SamplingIsAutomatic() { return g_automatic; }

uint64_t AdaptSampling(uint64_t recorded) {
  // What one recorded allocation and its free cost, new stacks included: on the safe side of docs/cost.md.
  constexpr uint64_t kNanosecondsEach = 2'000;
  constexpr uint64_t kEnough = 10'000'000;  // of processor time, to judge by
  const uint64_t cpu_ns = ProcessorTime();
  uint32_t rate = SampleRate();
  if (cpu_ns - g_judged.cpu_ns >= kEnough) {
    const uint64_t spent = (recorded - g_judged.recorded) * kNanosecondsEach;
    const uint64_t allowed = (cpu_ns - g_judged.cpu_ns) / 50;  // 2 %
    if (spent > allowed && rate < kMostRate) {
      ++rate;
    } else if (spent < allowed / 4 && rate > kLeastRate) {
      --rate;
    }
    g_judged = {cpu_ns, recorded};
    __atomic_store_n(&g_sample_rate, rate, __ATOMIC_RELAXED);
  }
  return 1ull << rate;
}

}  // namespace nodeleak::preload
