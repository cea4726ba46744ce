// Micro benchmarks of the walk and of the whole hot path. build: -DNODELEAK_BENCH=ON; run: build/DIR/bin/micro
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>

#include "bench/deep_call.h"
#include "bench/shim_core.h"
#include "preload/unwind/stack_walk.h"
#include "recording/reader.h"
#include "report/uses.h"

namespace nodeleak::bench {
namespace {

ShimCore& Core() {
  static ShimCore core(1ull << 30);
  return core;
}

preload::StackBounds OwnBounds() {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  static const uint64_t end = preload::FindStackEnd(here);
  preload::StackBounds bounds = {};
  bounds.high = end;
  return bounds;
}

std::unique_ptr<preload::WalkedStack> g_walked;

template <bool kRemember>
void WalkLoop(void* argument) {
  auto& state = *static_cast<benchmark::State*>(argument);
  const preload::StackBounds bounds = OwnBounds();
  for (auto _ : state) {
    if (!kRemember) g_walked->remembered = 0;
    preload::WalkStack(bounds, g_walked.get());
  }
  state.counters["frames"] = g_walked->depth;
}

template <bool kRemember>
void Walk(benchmark::State& state) {
  Core();
  g_walked = std::make_unique<preload::WalkedStack>();
  CallDeep(static_cast<int>(state.range(0)), WalkLoop<kRemember>, &state);
}
BENCHMARK(Walk<false>)->Name("walk, nothing remembered, by depth")->Arg(10)->Arg(30)->Arg(100);
BENCHMARK(Walk<true>)->Name("walk, all remembered, by depth")->Arg(10)->Arg(30)->Arg(100);

// The rules of all frames of a stack are derived anew: about 1 in 64 of them by libunwind.
void MissRules(void* argument) {
  auto& state = *static_cast<benchmark::State*>(argument);
  const preload::StackBounds bounds = OwnBounds();
  for (auto _ : state) {
    state.PauseTiming();
    preload::ForgetUnwindRules();
    state.ResumeTiming();
    preload::WalkStack(bounds, g_walked.get());
  }
}
void RuleMiss(benchmark::State& state) {
  Core();
  g_walked = std::make_unique<preload::WalkedStack>();
  CallDeep(30, MissRules, &state);
}
BENCHMARK(RuleMiss)->Name("walk of a stack of 30 frames, no rule known");

// A stack of 30 frames whose five innermost change, 64 blocks alive: what bench/guard.py counts the instructions of.
struct Turns {
  benchmark::State* state;
  uint64_t number;
};
void OneTurn(void* argument) {
  auto& turns = *static_cast<Turns*>(argument);
  constexpr uint64_t kAlive = 64, kAddresses = 4096, kBytes = 112;
  const uint64_t first = 0x7f0000000000 + (static_cast<uint64_t>(turns.state->thread_index()) << 32);
  ShimCore::Allocate(first + turns.number % kAddresses * kBytes, kBytes);
  if (turns.number >= kAlive) ShimCore::Free(first + (turns.number - kAlive) % kAddresses * kBytes);
  ++turns.number;
}
void TurnLoop(void* argument) {
  auto& turns = *static_cast<Turns*>(argument);
  for (auto _ : *turns.state) CallDeep(static_cast<int>(3 + turns.number % 5), OneTurn, &turns);
}
void HotPath(benchmark::State& state) {
  Core();
  Turns turns = {&state, 0};
  CallDeep(22, TurnLoop, &turns);
}
BENCHMARK(HotPath)
    ->Name("allocation and free, recorded, stack of 30")
    ->Threads(1)
    ->Threads(2)
    ->Threads(8)
    ->UseRealTime();

// A recording of a million blocks, read and added up.
void ReadMillion(benchmark::State& state) {
  for (uint64_t i = 0; i < 1'000'000; ++i) ShimCore::Allocate(0x600000000000 + i * 48, 33 + i % 7);
  for (auto _ : state) {
    auto recording = recording::ReadRecording(Core().path());
    if (!recording.ok()) return state.SkipWithError("cannot be read");
    benchmark::DoNotOptimize(report::CollectUses(*recording));
  }
  for (uint64_t i = 0; i < 1'000'000; ++i) ShimCore::Free(0x600000000000 + i * 48);
}
BENCHMARK(ReadMillion)->Name("read a recording of a million blocks")->Iterations(3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nodeleak::bench

BENCHMARK_MAIN();
