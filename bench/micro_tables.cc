// Micro benchmarks of the recorder's tables, each over anonymous memory of its own.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>

#include "preload/recorder/block_table.h"
#include "preload/recorder/recording_file.h"
#include "preload/recorder/stack_table.h"
#include "preload/unwind/modules.h"
#include "recording/layout.h"

namespace nodeleak::bench {
namespace {

using preload::BlockTable;
using preload::RecordingFile;
using preload::WalkedStack;

struct Blocks {
  Blocks() {
    if (!file.CreateInMemory(512 << 20)) abort();
    table.Attach(&file);
  }
  ~Blocks() { file.Close(); }
  RecordingFile file;
  BlockTable table;
};

recording::Block BlockAt(uint64_t address) { return {address, recording::PackSizeAndGc(33, 0), 1, 1}; }

// Threads share the table and have addresses of their own; range(0) other blocks are alive.
void InsertAndErase(benchmark::State& state) {
  static std::unique_ptr<Blocks> blocks;
  recording::Block old;
  if (state.thread_index() == 0) {
    blocks = std::make_unique<Blocks>();
    for (int64_t i = 0; i < state.range(0); ++i) {
      blocks->table.Insert(BlockAt(0x500000000000 + static_cast<uint64_t>(i) * 48), &old);
    }
  }
  const uint64_t first = 0x7f0000000000 + (static_cast<uint64_t>(state.thread_index()) << 32);
  uint64_t number = 0;
  for (auto _ : state) {
    const uint64_t address = first + number++ % 256 * 64;
    blocks->table.Insert(BlockAt(address), &old);
    blocks->table.Remove(address, &old);
  }
}
BENCHMARK(InsertAndErase)
    ->Name("block inserted and erased, by blocks alive")
    ->Arg(10'000)
    ->Arg(1'000'000)
    ->Threads(1)
    ->Threads(2)
    ->Threads(8)
    ->UseRealTime();

void Grow(benchmark::State& state) {
  recording::Block old;
  for (auto _ : state) {
    Blocks blocks;
    for (uint64_t i = 0; i < 1'000'000; ++i) blocks.table.Insert(BlockAt(0x500000000000 + i * 48), &old);
    const uint64_t bytes = blocks.file.header()->file_bytes;
    state.counters["bytes a block"] = static_cast<double>(bytes) / 1e6;
  }
}
BENCHMARK(Grow)->Name("a million blocks inserted, growing")->Iterations(3)->Unit(benchmark::kMillisecond);

// Stacks of 30 native frames; those of a miss differ in their five innermost.
struct Stacks {
  Stacks() {
    preload::RefreshModules();  // native frames are named by them
    if (!file.CreateInMemory(512 << 20) || !table.Attach(&file)) abort();
  }
  ~Stacks() { file.Close(); }
  RecordingFile file;
  preload::StackTable table;
};
constexpr uint32_t kDepth = 30, kChanging = 5;

void FillStack(uint64_t number, WalkedStack* walked) {
  walked->depth = kDepth;
  walked->hash = (number + 1) * 0x9e3779b97f4a7c15ull;
  for (uint32_t i = 0; i < kDepth; ++i) {
    preload::WalkedFrame& frame = walked->frames[i];
    const bool changes = i >= kDepth - kChanging;
    // The changing ones are a number of five digits, so that all lie in code of ours: others would be one marker.
    const uint64_t digit = changes ? 1 + (number >> (6 * (kDepth - 1 - i)) & 63) : 0;
    frame.key_a = reinterpret_cast<uint64_t>(&FillStack) + i + digit * kDepth;
    frame.type = preload::WalkedType::kNative;
    if (changes || number == 0) frame.node = recording::kNoIndex;
  }
}

void FindStack(benchmark::State& state) {
  Stacks stacks;
  auto walked = std::make_unique<WalkedStack>();
  auto room = std::make_unique<preload::v8::ResolveBuffer>();
  const bool miss = state.range(0) != 0;
  uint64_t number = 0;
  FillStack(number, walked.get());
  recording::LossId lost = recording::LossId::kCount;
  for (auto _ : state) {
    if (miss) FillStack(number++, walked.get());
    benchmark::DoNotOptimize(stacks.table.Find(walked.get(), 0, room.get(), &lost));
  }
  state.counters["bytes a stack"] =
      miss ? static_cast<double>(stacks.file.header()->file_bytes) / static_cast<double>(number) : 0;
}
BENCHMARK(FindStack)->Name("stack of 30 frames found")->Arg(0);
constexpr int kNewStacks = 200'000;  // they fit
BENCHMARK(FindStack)->Name("stack of 30 frames, its 5 innermost new")->Arg(1)->Iterations(kNewStacks);

}  // namespace
}  // namespace nodeleak::bench
