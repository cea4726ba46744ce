#include "preload/v8/buffer_lists.h"

#include "preload/base/guard.h"
#include "preload/base/safe_read.h"
#include "preload/base/system.h"
#include "preload/recorder/older_buffers.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

using recording::BufferListState;

namespace {

constexpr uint64_t kBuffersEveryNs = 100'000'000;
constexpr uint32_t kMostTries = 20;  // V8 may be sweeping for long, in a program that does nothing any more
constexpr uint64_t kMostNsAtTurn = 10'000'000, kMostNsAfterGc = 200'000'000;
constexpr uint32_t kLookAtClockEvery = 256;
constexpr uint64_t kMostInProof = 4096;  // buffers

// src/heap/array-buffer-sweeper.h and src/objects/js-array-buffer.h of V8 10.2 to 14.x, in words.
struct Shape {
  int newest_v8;
  uint32_t young, old;  // in the sweeper: head, tail and bytes of a list. Word 0 is the Heap, word 1 the state of a
                        // sweep that has begun, whose lists are elsewhere
  uint32_t store, next, bytes;  // in an ArrayBufferExtension
  uint32_t bytes_shift;
};
constexpr Shape kShapes[] = {
    {12, 13, 16, 1, 3, 4, 0},
    {14, 2, 6, 0, 2, 3, 1},
};
constexpr uint32_t kSweeperWords = 19;
constexpr uint32_t kExtensionWords = 5;
// The Heap is a part of the Isolate, behind its tables of roots and entry points; the sweeper hangs off the Heap.
constexpr uint64_t kFirstOffset = 32 * 1024, kMostIsolateBytes = 80 * 1024;
constexpr uint64_t kMostHeapBytes = 8 * 1024;  // between the Heap's beginning and its pointer to the sweeper
constexpr uint64_t kMostCounted = 1ull << 46;

struct List {
  uint64_t head, tail, bytes;
};
struct Sweeper {
  uint64_t words[kSweeperWords];
  uint64_t heap() const { return words[0]; }
  bool is_sweeping() const { return words[1] != 0; }
  List list(uint32_t at) const { return {words[at], words[at + 1], words[at + 2]}; }
};

// Found once, the same for all isolates of the process. Offset 0: not found.
struct Place {
  uint64_t pointer_offset;  // in the Isolate
  uint64_t heap_offset;
};
Place g_place;
SpinLock g_place_lock;

const Shape* ShapeOfThisV8() {
  for (const Shape& shape : kShapes)
    if (V8Major() <= shape.newest_v8) return &shape;
  return nullptr;
}

bool IsAddress(uint64_t word) { return (word & 7) == 0 && word > 0xffff && word < 1ull << 47; }
bool IsList(const List& list) {
  if (list.head == 0) return list.tail == 0 && list.bytes == 0;
  return IsAddress(list.head) && IsAddress(list.tail) && list.bytes < kMostCounted;
}

struct Walk {
  BufferListState state = BufferListState::kWhole;
  uint64_t buffers = 0, bytes = 0;
};

// `visit(address, bytes)` of each buffer that has memory; false ends it. True: to its end, and it adds up.
template <typename Visit>
bool WalkList(const Shape& shape, const List& list, uint64_t until_ns, Walk* walk, Visit visit) {
  uint64_t counted = 0;  // as V8 counts: without shared ones and the like
  uint32_t steps = 0;
  for (uint64_t at = list.head, next = 0; at != 0; at = next) {
    uint64_t extension[kExtensionWords];
    if (!IsAddress(at) || !ReadMemory(at, extension, sizeof extension)) return false;
    next = extension[shape.next];
    if ((at == list.tail) != (next == 0)) return false;
    const uint64_t store = extension[shape.store], accounted = extension[shape.bytes] >> shape.bytes_shift;
    counted += accounted;
    struct {
      uint64_t address, bytes;
    } memory = {0, 0};
    if (store != 0 && (!IsAddress(store) || !ReadMemory(store, &memory, sizeof memory))) return false;
    if (accounted != 0 && accounted != memory.bytes) return false;
    if (memory.address != 0 && memory.bytes != 0) {
      ++walk->buffers;
      walk->bytes += memory.bytes;
      if (!visit(memory.address, memory.bytes)) walk->state = BufferListState::kCut;
    }
    if (++steps % kLookAtClockEvery == 0 && MonotonicNanoseconds() >= until_ns) walk->state = BufferListState::kCut;
    if (walk->state == BufferListState::kCut) return true;
  }
  return counted == list.bytes;
}

template <typename Visit>
Walk WalkBoth(const Shape& shape, const Sweeper& sweeper, uint64_t until_ns, Visit visit) {
  Walk walk;
  const uint32_t lists[] = {shape.young, shape.old};
  for (const uint32_t at : lists) {
    if (walk.state != BufferListState::kWhole) break;
    if (!WalkList(shape, sweeper.list(at), until_ns, &walk, visit)) walk.state = BufferListState::kUnknown;
  }
  return walk;
}

bool ReadSweeper(uint64_t at, Sweeper* sweeper) { return SafeRead(at, sweeper->words, sizeof sweeper->words); }

// Node's own buffers are in every isolate's lists: thousands of entries that each agree with their store, or all of
// them and their sum, are no accident.
bool IsSweeper(const Shape& shape, const Sweeper& sweeper, uint64_t until_ns) {
  if (!IsList(sweeper.list(shape.young)) || !IsList(sweeper.list(shape.old))) return false;
  const KernelReads reads;  // what looks like a list may lead anywhere
  uint64_t left = kMostInProof, counted = 0;
  const Walk walk = WalkBoth(shape, sweeper, until_ns, [&left, &counted](uint64_t, uint64_t bytes) {
    counted += bytes;
    return --left != 0;
  });
  return walk.state != BufferListState::kUnknown && counted != 0;
}

// {0, 0}: none, or more than one, or they do not add up just now.
Place FindPlace(const Shape& shape, uint64_t isolate, uint64_t until_ns) {
  constexpr uint64_t kChunk = 4096;
  Place found = {0, 0};
  uint64_t words[kChunk / 8];
  for (uint64_t chunk = kFirstOffset; chunk < kMostIsolateBytes; chunk += kChunk) {
    if (!SafeRead(isolate + chunk, words, sizeof words)) break;
    for (uint64_t i = 0; i < kChunk / 8; ++i) {
      const uint64_t offset = chunk + i * 8, slot = isolate + offset;
      Sweeper sweeper;
      if (!IsAddress(words[i]) || (words[i] >= isolate && words[i] < isolate + kMostIsolateBytes)) continue;
      if (!ReadSweeper(words[i], &sweeper)) continue;
      const uint64_t heap = sweeper.heap();
      if (heap <= isolate || heap >= slot || slot - heap > kMostHeapBytes) continue;
      if (sweeper.is_sweeping() || !IsSweeper(shape, sweeper, until_ns)) continue;
      if (found.pointer_offset != 0) return {0, 0};
      found = {offset, heap - isolate};
    }
  }
  return found;
}

Place PlaceOf(const Shape& shape, uint64_t isolate, uint64_t until_ns) {
  if (!g_place_lock.TryLock()) return {0, 0};
  if (g_place.pointer_offset == 0) g_place = FindPlace(shape, isolate, until_ns);
  const Place place = g_place;
  g_place_lock.Unlock();
  return place;
}

Walk TellList(const IsolateRecord& record, uint64_t until_ns) {
  const Shape* shape = ShapeOfThisV8();
  const auto isolate = reinterpret_cast<uint64_t>(record.isolate);
  const Place place = shape == nullptr ? Place{0, 0} : PlaceOf(*shape, isolate, until_ns);
  uint64_t at = 0;
  Sweeper sweeper;
  if (place.pointer_offset == 0 || !SafeRead(isolate + place.pointer_offset, &at, sizeof at) ||
      !ReadSweeper(at, &sweeper) || sweeper.heap() != isolate + place.heap_offset)
    return {.state = BufferListState::kUnknown};
  Walk walk = WalkBoth(*shape, sweeper, until_ns, [](uint64_t, uint64_t) { return true; });
  if (walk.state == BufferListState::kUnknown) return walk;  // nothing is told that does not add up
  walk = WalkBoth(*shape, sweeper, until_ns,
                  [&record](uint64_t address, uint64_t bytes) { return BufferListed(record.index, address, bytes); });
  if (walk.state == BufferListState::kWhole && sweeper.is_sweeping()) walk.state = BufferListState::kSweeping;
  return walk;
}

void ReadBufferList(IsolateRecord* record, uint64_t most_ns) {
  if (record->index == recording::kNoIndex || record->gc_depth != 0 || !WantsOlderBuffers()) return;
  Guard guard;
  const uint64_t start_ns = MonotonicNanoseconds();
  BeginBufferList();
  const Walk walk = TellList(*record, start_ns + most_ns);
  record->buffers.tried_ns = CoarseMonotonicNanoseconds();
  ++record->buffers.tries;
  record->buffers.done = walk.state == BufferListState::kWhole || walk.state == BufferListState::kCut;
  const auto pause_us = static_cast<uint32_t>((MonotonicNanoseconds() - start_ns) / 1000);
  EndBufferList(record->index, {static_cast<uint32_t>(walk.state), pause_us, 0, walk.buffers, walk.bytes});
}

}  // namespace

void ReadBufferListIfDue(IsolateRecord* record) {
  const BufferListTries& tries = record->buffers;
  if (tries.done || tries.tries >= kMostTries || CoarseMonotonicNanoseconds() - tries.tried_ns < kBuffersEveryNs)
    return;
  ReadBufferList(record, kMostNsAtTurn);
}

void ReadBufferListAfterGc(IsolateRecord* record) { ReadBufferList(record, kMostNsAfterGc); }

}  // namespace nodeleak::preload::v8
