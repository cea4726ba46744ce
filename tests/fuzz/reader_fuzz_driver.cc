// Fuzzing for a machine without libFuzzer: changes recordings that a builder made, from a fixed seed, so that a failure
// comes again.    reader_fuzz [iterations [seed]]
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "recording/layout.h"
#include "tests/support/recording_builder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace nodeleak::recording {
namespace {

using Bytes = std::vector<char>;
using Random = std::mt19937_64;

uint64_t Below(Random* random, uint64_t end) { return end == 0 ? 0 : (*random)() % end; }

// Everything there is, a little of it.
Bytes MakeSeed(uint32_t size) {
  RecordingBuilder builder;
  builder.SetCommand({"node", "--expose-gc", "server.js"});
  builder.SetExecutable("/usr/bin/node");
  builder.SetVersions("v22.23.3", "12.4");
  builder.SetCapability(CapabilityId::kJsLines, CapabilityState::kDegraded, "V8 15.1: no bytecode offsets");
  const uint32_t module = builder.AddModule("/app/addon.node", 0x7f1234560000, "01234567890123456789");
  const uint32_t worker = builder.AddThread("worker", ThreadRole::kWorker, 1, 0);
  const uint32_t isolate = builder.AddIsolate({.thread = worker, .generation = 1});
  builder.AddHeapSpace(isolate, "old_space", 1999, 37);
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t frame = builder.AddJsFrame("f" + std::to_string(i % 7), "/app/server.js", i, 3);
    const uint32_t stack = builder.AddStack({builder.AddNativeFrame(module, i), frame, i % 5}, i % 2);
    builder.AddBlocks(1 + i % 3, 1999 + i, stack, i);
    builder.AddRange({0x10000ull * (i + 1), 0x10000ull * (i + 1) + 0x1000, stack, i, 0, 0, 3, 0});
    builder.AddTimelineSample({.time_ns = i * 1000, .rss_bytes = i});
    if (i % 8 == 0) builder.AddCheckpoint(i, i, {{stack, i, i, i, i}, {0, 1, 1, 1, 1}});
  }
  return builder.Build();
}

// Numbers that break arithmetic.
uint64_t Interesting(Random* random, uint64_t old, uint64_t file_size) {
  const uint64_t values[] = {0,
                             1,
                             2,
                             old + 1,
                             old - 1,
                             old ^ (1ull << Below(random, 64)),
                             0x7f,
                             0xff,
                             0xffff,
                             0x7fffffff,
                             0x80000000,
                             0xffffffff,
                             1ull << 32,
                             1ull << 63,
                             ~0ull,
                             ~0ull / 24,
                             ~0ull - 63,
                             file_size,
                             file_size - 1,
                             file_size / 2,
                             Below(random, file_size),
                             (*random)()};
  return values[Below(random, std::size(values))];
}

void ChangeNumber(Bytes* bytes, uint64_t offset, uint32_t width, Random* random) {
  if (offset + width > bytes->size()) return;
  uint64_t value = 0;
  memcpy(&value, bytes->data() + offset, width);
  value = Interesting(random, value, bytes->size());
  memcpy(bytes->data() + offset, &value, width);
}

uint32_t RandomWidth(Random* random) { return 1u << Below(random, 4); }

void ChangeHeader(Bytes* bytes, Random* random) {
  constexpr uint64_t kFirstAfterVersion = offsetof(Header, file_bytes);
  const uint64_t end = Below(random, 2) == 0 ? sizeof(Header) : offsetof(Header, tables);
  const uint32_t width = RandomWidth(random);
  ChangeNumber(bytes, kFirstAfterVersion + Below(random, end - kFirstAfterVersion) / width * width, width, random);
}

void ChangeTableHead(Bytes* bytes, Random* random) {
  const uint64_t table = offsetof(Header, tables) + Below(random, kTableCount) * sizeof(Table);
  constexpr uint64_t kUsedBytes = offsetof(Table, extents) + 6 * sizeof(uint64_t);
  const uint32_t width = Below(random, 2) == 0 ? 8 : 4;
  ChangeNumber(bytes, table + Below(random, kUsedBytes) / width * width, width, random);
}

void ChangeShard(Bytes* bytes, Random* random) {
  uint64_t shards = 0;
  memcpy(&shards, bytes->data() + offsetof(Header, shards_offset), sizeof(shards));
  if (shards > bytes->size()) return;
  const uint64_t fields[] = {offsetof(Shard, sequence), offsetof(Shard, capacity), offsetof(Shard, offset),
                             offsetof(Shard, count)};
  const uint64_t field = fields[Below(random, std::size(fields))];
  ChangeNumber(bytes, shards + Below(random, kShardCount) * sizeof(Shard) + field,
               field == offsetof(Shard, offset) ? 8 : 4, random);
}

void ChangeEntry(Bytes* bytes, Random* random) {
  const uint64_t first_extent =
      offsetof(Header, tables) + Below(random, kTableCount) * sizeof(Table) + offsetof(Table, extents);
  uint64_t extent = 0;
  memcpy(&extent, bytes->data() + first_extent, sizeof(extent));
  if (extent >= bytes->size()) return;
  ChangeNumber(bytes, extent + Below(random, 256) * 4, 4, random);
}

void ChangeAnything(Bytes* bytes, Random* random) {
  ChangeNumber(bytes, Below(random, bytes->size()), RandomWidth(random), random);
}

void CopySpan(Bytes* bytes, Random* random) {
  const uint64_t length = Below(random, 512);
  if (bytes->size() < sizeof(Header) + length) return;
  const uint64_t from = Below(random, bytes->size() - length), to = Below(random, bytes->size() - length);
  memmove(bytes->data() + to, bytes->data() + from, length);
}

void Truncate(Bytes* bytes, Random* random) {
  if (Below(random, 8) != 0) return;  // a short file hides all other changes
  bytes->resize(Below(random, bytes->size()));
}

constexpr void (*kChanges[])(Bytes*, Random*) = {ChangeHeader,   ChangeTableHead, ChangeTableHead,
                                                 ChangeShard,    ChangeEntry,     ChangeEntry,
                                                 ChangeAnything, CopySpan,        Truncate};

void Run(uint64_t iterations, uint64_t seed) {
  const Bytes seeds[] = {MakeSeed(0), MakeSeed(5), MakeSeed(40)};
  Random random(seed);
  for (uint64_t i = 0; i < iterations; ++i) {
    Bytes bytes = seeds[Below(&random, std::size(seeds))];
    const uint64_t changes = 1 + Below(&random, 12);
    for (uint64_t change = 0; change < changes && bytes.size() >= sizeof(Header); ++change) {
      kChanges[Below(&random, std::size(kChanges))](&bytes, &random);
    }
    // Exactly as long as it is: a vector's spare room would hide a read past the end.
    bytes.shrink_to_fit();
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

}  // namespace
}  // namespace nodeleak::recording

int main(int argc, char** argv) {
  constexpr uint64_t kDefaultIterations = 20'000, kDefaultSeed = 1999;
  const uint64_t iterations = argc > 1 ? strtoull(argv[1], nullptr, 10) : kDefaultIterations;
  const uint64_t seed = argc > 2 ? strtoull(argv[2], nullptr, 10) : kDefaultSeed;
  nodeleak::recording::Run(iterations, seed);
  printf("%llu recordings read\n", static_cast<unsigned long long>(iterations));
  return 0;
}
