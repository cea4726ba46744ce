#include "preload/v8/script_lines.h"

#include <emmintrin.h>
#include <string.h>

#include "preload/base/system.h"
#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

namespace {

// 4 MiB of line ends are a million lines.
constexpr uint64_t kBudgetBytes = 4u << 20;
constexpr int kSlots = 128;
struct CachedScript {
  uint32_t generation;  // 0 and 0: free
  int32_t script_id;
  uint32_t* ends;
  uint32_t count;
  uint32_t capacity;
  uint32_t last_used;
};
// One for the first isolate, one for all others: the main thread waits for no worker that lost the processor.
struct Cache {
  SpinLock lock;
  CachedScript scripts[kSlots];
  uint64_t used_bytes;
  uint32_t clock;
};
constinit Cache g_caches[2] = {};

Cache* CacheOf(uint32_t generation) { return &g_caches[generation == 1 ? 0 : 1]; }

uint64_t Bytes(const CachedScript& script) { return static_cast<uint64_t>(script.capacity) * sizeof(uint32_t); }

void Drop(Cache* cache, CachedScript* script) {
  cache->used_bytes -= Bytes(*script);
  UnmapMemory(script->ends, Bytes(*script));
  *script = {};
}

CachedScript* FindCached(Cache* cache, uint32_t generation, int32_t script_id) {
  for (CachedScript& script : cache->scripts) {
    if (script.ends != nullptr && script.script_id == script_id && script.generation == generation) return &script;
  }
  return nullptr;
}

CachedScript* LeastRecentlyUsed(Cache* cache, bool free_first) {
  CachedScript* oldest = nullptr;
  for (CachedScript& script : cache->scripts) {
    if (script.ends == nullptr) {
      if (free_first) return &script;
      continue;
    }
    if (oldest == nullptr || script.last_used < oldest->last_used) oldest = &script;
  }
  return oldest;
}

bool FindInCache(uint32_t generation, int32_t script_id, uint32_t position, LineColumn* found) {
  Cache* cache = CacheOf(generation);
  if (!cache->lock.TryLock()) return false;
  CachedScript* script = FindCached(cache, generation, script_id);
  if (script != nullptr) {
    script->last_used = ++cache->clock;
    *found = FindInLineEnds(script->ends, script->count, position);
  }
  cache->lock.Unlock();
  return script != nullptr;
}

// Takes the collector's memory when it fits the budget.
void Keep(uint32_t generation, int32_t script_id, LineEndCollector* lines) {
  Cache* cache = CacheOf(generation);
  uint64_t bytes = static_cast<uint64_t>(lines->capacity()) * sizeof(uint32_t);
  if (lines->ends() == nullptr || bytes > kBudgetBytes / 2 || !cache->lock.TryLock()) return;
  if (FindCached(cache, generation, script_id) == nullptr) {
    while (cache->used_bytes + bytes > kBudgetBytes) Drop(cache, LeastRecentlyUsed(cache, false));
    CachedScript* slot = LeastRecentlyUsed(cache, true);
    if (slot->ends != nullptr) Drop(cache, slot);
    *slot = {generation,     script_id,         const_cast<uint32_t*>(lines->ends()),
             lines->count(), lines->capacity(), ++cache->clock};
    cache->used_bytes += bytes;
    lines->Release();
  }
  cache->lock.Unlock();
}

int32_t ReadSmi(uint64_t object, Field field) {
  uint64_t value = ReadField(object, field);
  return IsSmi(value) ? SmiValue(value) : 0;
}

LineColumn WithScriptOffsets(uint64_t script, LineColumn zero_based) {
  int32_t line_offset = ReadSmi(script, Field::kScriptLineOffset);
  int32_t column_offset = zero_based.line == 0 ? ReadSmi(script, Field::kScriptColumnOffset) : 0;
  return {static_cast<uint32_t>(static_cast<int32_t>(zero_based.line) + line_offset + 1),
          static_cast<uint32_t>(static_cast<int32_t>(zero_based.column) + column_offset + 1)};
}

}  // namespace

LineEndCollector::~LineEndCollector() {
  if (ends_ != nullptr) UnmapMemory(ends_, capacity_ * sizeof(uint32_t));
}

bool LineEndCollector::Add(uint32_t position) {
  if (count_ == capacity_) {
    uint32_t larger = capacity_ == 0 ? 1024 : capacity_ * 2;
    auto* memory = static_cast<uint32_t*>(MapMemory(larger * sizeof(uint32_t)));
    if (memory == nullptr) return false;
    if (ends_ != nullptr) {
      memcpy(memory, ends_, count_ * sizeof(uint32_t));
      UnmapMemory(ends_, capacity_ * sizeof(uint32_t));
    }
    ends_ = memory;
    capacity_ = larger;
  }
  ends_[count_++] = position;
  return true;
}

namespace {

// How many characters from `i` on end no line. 16 bytes at a time: the scripts of a start are megabytes.
uint32_t PlainOneByte(const uint8_t* characters, uint32_t i, uint32_t count) {
  const uint32_t begin = i;
  const __m128i newline = _mm_set1_epi8('\n'), carriage_return = _mm_set1_epi8('\r');
  for (; i + 16 <= count; i += 16) {
    const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(characters + i));
    const __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(sixteen, newline), _mm_cmpeq_epi8(sixteen, carriage_return));
    const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(ends));
    if (mask != 0) return i + static_cast<uint32_t>(__builtin_ctz(mask)) - begin;
  }
  while (i < count && characters[i] != '\n' && characters[i] != '\r') ++i;
  return i - begin;
}

constexpr uint16_t kLineSeparator = 0x2028, kParagraphSeparator = 0x2029;

uint32_t PlainTwoByte(const uint16_t* characters, uint32_t i, uint32_t count) {
  const uint32_t begin = i;
  while (i < count && characters[i] != '\n' && characters[i] != '\r' && characters[i] != kLineSeparator &&
         characters[i] != kParagraphSeparator)
    ++i;
  return i - begin;
}

}  // namespace

bool LineEndCollector::Take(const StringPiece& piece) {
  for (uint32_t i = 0; i < piece.count; ++i, ++position_) {
    if (!carriage_return_) {
      const uint32_t plain = piece.one_byte
                                 ? PlainOneByte(static_cast<const uint8_t*>(piece.characters), i, piece.count)
                                 : PlainTwoByte(static_cast<const uint16_t*>(piece.characters), i, piece.count);
      i += plain;
      position_ += plain;
      if (i == piece.count) break;
    }
    const uint16_t c = piece[i];
    if (carriage_return_) {
      carriage_return_ = false;
      if (c != '\n' && !Add(position_ - 1)) return false;
    }
    if (c == '\r') {
      carriage_return_ = true;
    } else if ((c == '\n' || c == kLineSeparator || c == kParagraphSeparator) && !Add(position_)) {
      return false;
    }
  }
  return true;
}

void LineEndCollector::Finish() {
  if (carriage_return_) Add(position_ - 1);
  carriage_return_ = false;
}

LineColumn FindInLineEnds(const uint32_t* ends, uint32_t count, uint32_t position) {
  uint32_t low = 0, high = count;  // first end at or after the position
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (ends[middle] < position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return {low, low == 0 ? position : position - ends[low - 1] - 1};
}

LineColumn FindLineColumn(uint32_t isolate_generation, uint64_t script, int32_t position) {
  if (position < 0) return {0, 0};
  uint64_t id = ReadField(script, Field::kScriptId);
  if (!IsSmi(id)) return {0, 0};
  LineColumn found;
  uint32_t at = static_cast<uint32_t>(position);
  if (FindInCache(isolate_generation, SmiValue(id), at, &found)) return WithScriptOffsets(script, found);
  LineEndCollector lines;
  if (!VisitString(ReadField(script, Field::kScriptSource), &lines)) return {0, 0};
  lines.Finish();
  found = FindInLineEnds(lines.ends(), lines.count(), at);
  Keep(isolate_generation, SmiValue(id), &lines);
  return WithScriptOffsets(script, found);
}

}  // namespace nodeleak::preload::v8
