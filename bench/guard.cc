// cost_guard ROUNDS: what the hot path does in a server, ROUNDS times. bench/guard.py counts its instructions.
//   a stack of 30 frames of which the inner ones change, 64 blocks alive at a time, the oldest freed for each new one
#include <cstdint>
#include <cstdlib>

#include "bench/deep_call.h"
#include "bench/shim_core.h"

namespace {

using nodeleak::bench::CallDeep;
using nodeleak::bench::ShimCore;

constexpr uint64_t kAlive = 64;
constexpr uint64_t kBlockBytes = 112;
constexpr uint64_t kAddresses = 4096;

uint64_t AddressOf(uint64_t number) { return 0x7f0000000000 + number % kAddresses * kBlockBytes; }

void Turn(void* number) {
  uint64_t& count = *static_cast<uint64_t*>(number);
  ShimCore::Allocate(AddressOf(count), kBlockBytes - 9);
  if (count >= kAlive) ShimCore::Free(AddressOf(count - kAlive));
  ++count;
}

void Serve(void* rounds) {
  uint64_t number = 0;
  for (uint64_t i = 0; i < *static_cast<uint64_t*>(rounds); ++i) CallDeep(static_cast<int>(3 + i % 5), Turn, &number);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t rounds = argc > 1 ? strtoull(argv[1], nullptr, 10) : 1000;
  ShimCore core(64 << 20);
  CallDeep(22, Serve, &rounds);
  return 0;
}
