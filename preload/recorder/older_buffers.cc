#include "preload/recorder/older_buffers.h"

#include "preload/base/guard.h"
#include "preload/recorder/intern_index.h"
#include "preload/recorder/recorder_state.h"
#include "preload/recorder/sampler.h"

namespace nodeleak::preload {

using recording::kNoIndex;
using recording::OlderBuffer;

uint32_t g_older_buffers;

namespace {

constexpr uint32_t kMostBuffers = 1u << 18;  // 6 MiB of the recording
constexpr uint32_t kReadingShift = 8;        // of the reading's number in OlderBuffer::flags
constexpr uint32_t kMostReadings = 1u << (32 - kReadingShift);

SpinLock g_lock;  // the index, and all that the table says
InternIndex g_index;
uint32_t g_readings;
__thread uint32_t t_reading __attribute__((tls_model("initial-exec")));

uint64_t HashOf(uint64_t address) { return HashBytes(&address, sizeof address); }

// nullptr: was never listed.
OlderBuffer* Find(uint64_t address) {
  const uint32_t index = g_index.Find(
      HashOf(address), [address](uint32_t entry) { return g_recorder.older_buffers[entry].address == address; });
  return index == InternIndex::kNone ? nullptr : &g_recorder.older_buffers[index];
}

void SetFlags(OlderBuffer* buffer, uint32_t flags) { __atomic_store_n(&buffer->flags, flags, __ATOMIC_RELAXED); }
uint32_t FlagsOfReading() { return t_reading << kReadingShift; }

bool Add(const OlderBuffer& buffer) {
  if (g_recorder.older_buffers.count() >= kMostBuffers) return false;
  const uint32_t index = g_recorder.older_buffers.Append(buffer);
  if (index == kNoIndex) return false;
  if (!g_index.Insert(HashOf(buffer.address), index)) return false;
  __atomic_store_n(&g_older_buffers, index + 1, __ATOMIC_RELEASE);
  return true;
}

// Whoever made it since the attach is known.
bool IsRecorded(uint64_t address) { return g_recorder.blocks.Holds(address) || g_recorder.ranges.Covers(address); }

void MarkUnseen(uint32_t isolate) {
  for (uint64_t i = 0; i < g_recorder.older_buffers.count(); ++i) {
    OlderBuffer& buffer = g_recorder.older_buffers[i];
    if (buffer.isolate == isolate && (buffer.flags & ~uint32_t{recording::kOlderFreed}) != FlagsOfReading())
      SetFlags(&buffer, buffer.flags | recording::kOlderFreed);
  }
}

void StoreList(uint32_t isolate, const recording::BufferList& list) {
  const uint64_t count = g_recorder.buffer_lists.count();
  if (isolate >= count) {
    if (!g_recorder.buffer_lists.Reserve(isolate + 1ull)) return;
    for (uint64_t i = count; i <= isolate; ++i) g_recorder.buffer_lists[i] = {};
    g_recorder.buffer_lists.Publish(isolate + 1ull);
  }
  g_recorder.buffer_lists[isolate] = list;
}

}  // namespace

bool WantsOlderBuffers() {
  return IsRecording() && (g_recorder.file.header()->flags & recording::kIsAttached) != 0 && SampleRate() == 0 &&
         !SamplingIsAutomatic();
}

void BeginBufferList() {
  if (!g_lock.TryLock()) return;
  t_reading = ++g_readings % kMostReadings;
  g_lock.Unlock();
}

bool BufferListed(uint32_t isolate, uint64_t address, uint64_t bytes) {
  const bool recorded = IsRecorded(address);  // before our lock is taken: nobody takes two
  if (!g_lock.TryLock()) return false;
  bool room = true;
  OlderBuffer* known = Find(address);
  if (recorded) {
    if (known != nullptr) SetFlags(known, known->flags | recording::kOlderFreed);  // the address is another block's
  } else if (known != nullptr) {
    known->isolate = isolate;
    known->bytes = bytes;
    SetFlags(known, FlagsOfReading());
  } else {
    room = Add({address, bytes, isolate, FlagsOfReading()});
  }
  g_lock.Unlock();
  return room;
}

void EndBufferList(uint32_t isolate, recording::BufferList list) {
  list.read_ns = NanosecondsSinceStart();
  if (!g_lock.TryLock()) return;
  if (list.state == static_cast<uint32_t>(recording::BufferListState::kWhole)) MarkUnseen(isolate);
  StoreList(isolate, list);
  g_lock.Unlock();
}

void MarkOlderBufferFreed(uint64_t address) {
  if (!g_lock.TryLock()) return;
  if (OlderBuffer* buffer = Find(address)) SetFlags(buffer, buffer->flags | recording::kOlderFreed);
  g_lock.Unlock();
}

void ForgetOlderBuffers() {
  __atomic_store_n(&g_older_buffers, 0u, __ATOMIC_RELEASE);
  g_index.Free();
}

}  // namespace nodeleak::preload
