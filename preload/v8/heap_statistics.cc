#include "preload/v8/heap_statistics.h"

#include <string.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"

namespace nodeleak::preload::v8 {
namespace {

constexpr uint64_t kStatisticsEveryNs = 100'000'000;
// V8 walks all pages for one: a microsecond of a small heap, much more of a large one, after each of many scavenges.
constexpr uint64_t kRestPerReading = 500;

// v8::HeapStatistics: 14 words from V8 10 to 13, and one more (total_allocated_bytes) in 14. include/v8-statistics.h.
struct V8HeapStatistics {
  uint64_t total, executable, physical, available, used, limit, malloced, external, peak_malloced;
  uint64_t does_zap;  // one byte; the rest is padding
  uint64_t native_contexts, detached_contexts, global_handles_total, global_handles_used;
};
constexpr size_t kWordsBefore14 = 14;
constexpr size_t kWordsSince14 = 15;
constexpr size_t kRoomWords = 64;  // a longer struct of a V8 that we do not know must not run over our stack
constexpr uint64_t kFill = 0xa5a5a5a5a5a5a5a5u;
static_assert(sizeof(V8HeapStatistics) == kWordsBefore14 * 8);

// v8::HeapSpaceStatistics, the same from V8 10 to 14.
struct V8HeapSpace {
  const char* name;
  uint64_t size, used, available, physical;
  uint64_t room[8];
};
constexpr size_t kMaxSpaces = 32;

struct Reading {
  V8HeapStatistics heap;
  uint64_t external_told;
  size_t words;  // that V8 wrote
  size_t space_count;
  V8HeapSpace spaces[kMaxSpaces];
};

// A background thread may allocate between the reads of a good layout; a bad one never adds up.
enum class Trust : uint8_t { kUnproved, kProved, kRefused };
constexpr uint32_t kChances = 8;
Trust g_trust;
uint32_t g_failures;

void Read(Isolate* isolate, Reading* reading) {
  uint64_t words[kRoomWords];
  for (uint64_t& word : words) word = kFill;
  symbols().get_heap_statistics(isolate, words);
  reading->words = 0;
  for (size_t i = 0; i < kRoomWords; ++i)
    if (words[i] != kFill) reading->words = i + 1;
  memcpy(&reading->heap, words, sizeof reading->heap);
}

void ReadSpacesToo(Isolate* isolate, Reading* reading) {
  Read(isolate, reading);
  reading->space_count = symbols().number_of_heap_spaces(isolate);
  if (reading->space_count > kMaxSpaces) reading->space_count = kMaxSpaces;
  for (size_t i = 0; i < reading->space_count; ++i) {
    memset(&reading->spaces[i], 0, sizeof reading->spaces[i]);
    symbols().get_heap_space_statistics(isolate, &reading->spaces[i], i);
  }
}

bool AddsUp(const Reading& reading) {
  const V8HeapStatistics& heap = reading.heap;
  uint64_t size = 0, used = 0;
  for (size_t i = 0; i < reading.space_count; ++i) {
    size += reading.spaces[i].size;
    used += reading.spaces[i].used;
  }
  return (reading.words == kWordsBefore14 || reading.words == kWordsSince14) && heap.total == size &&
         heap.used == used && heap.used <= heap.total && heap.native_contexts >= 1 && (heap.does_zap & 0xff) <= 1;
}

bool Trusted(const Reading& reading) {
  if (g_trust == Trust::kProved) return true;
  if (AddsUp(reading)) {
    g_trust = Trust::kProved;
    SetCapability(recording::CapabilityId::kHeapStatistics, recording::CapabilityState::kFull, "");
    return true;
  }
  if (++g_failures < kChances) return false;
  g_trust = Trust::kRefused;
  SetCapability(recording::CapabilityId::kHeapStatistics, recording::CapabilityState::kAbsent,
                "v8::HeapStatistics has a layout that does not add up");
  return false;
}

// By nothing at all: V8 answers with the sum, and only a positive change may make it collect.
uint64_t ExternalTold(Isolate* isolate) {
  const auto adjust = symbols().adjust_external_memory;
  const int64_t bytes = adjust == nullptr ? -1 : adjust(isolate, 0);
  return bytes < 0 ? recording::kNoExternalTold : static_cast<uint64_t>(bytes);
}

void Report(uint32_t isolate, const Reading& reading) {
  const V8HeapStatistics& heap = reading.heap;
  HeapStatisticsRead(isolate, {.total = heap.total,
                               .physical = heap.physical,
                               .used = heap.used,
                               .limit = heap.limit,
                               .malloced = heap.malloced,
                               .peak_malloced = heap.peak_malloced,
                               .external = heap.external,
                               .external_told = reading.external_told,
                               .global_handles = heap.global_handles_used,
                               .native_contexts = heap.native_contexts,
                               .detached_contexts = heap.detached_contexts});
  for (size_t i = 0; i < reading.space_count; ++i) {
    const V8HeapSpace& space = reading.spaces[i];
    if (space.name != nullptr)
      HeapSpaceRead(isolate, space.name, space.size, space.used, space.available, space.physical);
  }
}

bool CanRead(const IsolateRecord& record) {
  return HasFeature(Feature::kHeapStatistics) && g_trust != Trust::kRefused && record.index != recording::kNoIndex;
}

}  // namespace

bool HeapStatisticsAddUp() { return g_trust == Trust::kProved; }

void ReadHeapStatistics(IsolateRecord* record) {
  if (!CanRead(*record)) return;
  record->statistics_ns = CoarseMonotonicNanoseconds();
  Reading reading;  // 3 KB of stack
  ReadSpacesToo(record->isolate, &reading);
  reading.external_told = ExternalTold(record->isolate);
  Guard guard;
  if (Trusted(reading)) Report(record->index, reading);
}

void ReadHeapStatisticsIfDue(IsolateRecord* record) {
  if (CoarseMonotonicNanoseconds() - record->statistics_ns >= kStatisticsEveryNs) ReadHeapStatistics(record);
}

void ReadHeapAfterCollection(IsolateRecord* record, bool full) {
  const uint64_t begun = MonotonicNanoseconds();
  if (!CanRead(*record) || (!full && begun < record->rest_until_ns)) return;
  Reading reading;
  const bool proved = HeapStatisticsAddUp();
  proved ? Read(record->isolate, &reading) : ReadSpacesToo(record->isolate, &reading);
  record->rest_until_ns = begun + kRestPerReading * (MonotonicNanoseconds() - begun);
  Guard guard;
  if (proved || Trusted(reading)) HeapUsedAfterCollection(record->index, reading.heap.used, full);
}

}  // namespace nodeleak::preload::v8
