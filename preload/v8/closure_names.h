// Runs inside node, on any thread, possibly inside malloc or a collection. Never allocates, waits or throws.
//
// A function can carry a name of its own, as a data property "name": computed method names, Object.defineProperty. V8
// shows it in stack traces (JSFunction::GetDebugName), and closures of one literal can each have another one, so it
// belongs into the key of a frame. Which functions have one, and where it lies, their Map says: the maps seen with such
// a name are kept in a table, behind a filter, so that all other functions pay for one load.
#pragma once

#include <stdint.h>

#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

// The value of the own data property "name" of a JSFunction, a tagged string; 0 when V8 made the name up itself. Its
// map is remembered. 0 too when the table of maps is full: what is not in the key must not be shown.
uint64_t FindOwnName(uint64_t function);

// A program can make names without end ("request 4711"). True for the first 4,096 different ones.
bool IsWorthKeeping(const char* name, uint64_t bytes);

constexpr uint32_t kNamedMapFilterWords = 64;
extern uint64_t g_named_map_filter[kNamedMapFilterWords];

inline uint64_t MixMap(uint64_t map) { return map * 0x9E3779B97F4A7C15ull; }
uint32_t OwnNameBits(uint64_t function, uint64_t map, uint64_t mixed);  // the slow part of ClosureBits

// Bits for a frame's key that tell closures of one literal apart when their names may differ. A change that a
// collection makes (the map or the name moved) only costs: the frame is resolved once more and is the same.
inline uint32_t ClosureBits(uint64_t function) {
  uint64_t map;
  if (!LoadWord(function - 1, &map)) return 0;
  const uint64_t mixed = MixMap(map);
  const uint32_t bits = static_cast<uint32_t>(mixed >> 32);
  const uint64_t word = __atomic_load_n(&g_named_map_filter[mixed >> 58], __ATOMIC_RELAXED);
  if (__builtin_expect((word >> (mixed >> 52 & 63) & 1) == 0, 1)) return bits;
  return bits ^ OwnNameBits(function, map, mixed);
}

}  // namespace nodeleak::preload::v8
