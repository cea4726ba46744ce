#include "preload/v8/closure_names.h"

#include "preload/recorder/intern_index.h"
#include "preload/v8/known_facts.h"
#include "preload/v8/strings.h"

namespace nodeleak::preload::v8 {

uint64_t g_named_map_filter[kNamedMapFilterWords];

namespace {

// Where a function's own name lies. The same for all functions of one map.
struct NamePlace {
  enum Kind : uint32_t {
    kNone = 0,
    kInObject,       // value: byte offset in the function
    kPropertyArray,  // value: index
    kDictionary,     // somewhere in the dictionary that the function's properties are
    kInMap,          // value: index of the descriptor that holds it
  };
  Kind kind;
  int32_t value;
};

// --- maps of functions that have a name of their own
struct NamedMap {
  uint64_t map;  // 0: free; written last
  NamePlace place;
};
constexpr uint32_t kMapSlots = 1024;
constexpr uint32_t kMostMaps = kMapSlots / 2;
NamedMap g_maps[kMapSlots];
uint32_t g_map_count;

const NamedMap* FindNamedMap(uint64_t map, uint64_t mixed) {
  for (uint64_t i = mixed >> 40;; ++i) {
    const NamedMap& entry = g_maps[i % kMapSlots];
    const uint64_t there = __atomic_load_n(&entry.map, __ATOMIC_ACQUIRE);
    if (there == map) return &entry;
    if (there == 0) return nullptr;
  }
}

bool AddNamedMap(uint64_t map, uint64_t mixed, NamePlace place) {
  if (g_map_count >= kMostMaps) return false;
  uint64_t i = mixed >> 40;
  while (__atomic_load_n(&g_maps[i % kMapSlots].map, __ATOMIC_RELAXED) != 0) ++i;
  NamedMap& entry = g_maps[i % kMapSlots];
  entry.place = place;
  __atomic_store_n(&entry.map, map, __ATOMIC_RELEASE);
  ++g_map_count;
  __atomic_fetch_or(&g_named_map_filter[mixed >> 58], uint64_t{1} << (mixed >> 52 & 63), __ATOMIC_RELAXED);
  return true;
}

bool RememberNamedMap(uint64_t map, NamePlace place) {
  const uint64_t mixed = MixMap(map);
  if (FindNamedMap(map, mixed) != nullptr) return true;
  static SpinLock lock;
  if (!lock.TryLock()) return false;
  const bool remembered = FindNamedMap(map, mixed) != nullptr || AddNamedMap(map, mixed, place);
  lock.Unlock();
  return remembered;
}

// --- reading a map
// DescriptorArray: header of 24 bytes (32 in V8 14, v8dbg), then key, details, value per property.
constexpr int32_t kDescriptorBytes = 24;
constexpr int kMostDescriptors = 32;
// Map::bit_field3: number of own descriptors from bit 10, dictionary map 21.
constexpr int kDescriptorCountShift = 10;
constexpr int kDescriptorCountMask = 1023;
constexpr int kDictionaryBit = 21;
// PropertyDetails (Smi): kind bit 0 (0: data), location bit 5 (0: a field, 1: the value is in the descriptor), field
// index from bit 19. v8dbg_prop_*.
constexpr int kLocationBit = 5;
constexpr int kFieldIndexShift = 19;
constexpr int kFieldIndexMask = 1023;

struct Descriptor {
  uint64_t key, details, value;
};

bool ReadDescriptor(uint64_t map, int index, Descriptor* descriptor) {
  const uint64_t descriptors = ReadField(map, Field::kMapDescriptors);
  if (!IsHeapObject(descriptors)) return false;
  const int32_t offset = Get(Field::kDescriptorsHeader) + kDescriptorBytes * index;
  return ReadMemory(descriptors - 1 + static_cast<uint64_t>(offset), descriptor, sizeof *descriptor);
}

NamePlace PlaceOfField(uint64_t map, int32_t index) {
  uint8_t size_words = 0, in_object_start = 0;
  ReadMemory(map - 1 + Get(Field::kMapInstanceSizeWords), &size_words, 1);
  ReadMemory(map - 1 + Get(Field::kMapInObjectStartWords), &in_object_start, 1);
  const int32_t in_object = size_words - in_object_start;
  if (in_object < 0) return {NamePlace::kNone, 0};
  if (index < in_object) return {NamePlace::kInObject, 8 * (in_object_start + index)};
  return {NamePlace::kPropertyArray, index - in_object};
}

NamePlace FindPlace(uint64_t map) {
  const uint32_t bits = static_cast<uint32_t>(ReadInt(map - 1 + Get(Field::kMapBitField3)));
  if ((bits >> kDictionaryBit & 1) != 0) return {NamePlace::kDictionary, 0};
  int count = static_cast<int>(bits >> kDescriptorCountShift & kDescriptorCountMask);
  if (count > kMostDescriptors) count = kMostDescriptors;
  Descriptor descriptor;
  for (int i = 0; i < count && ReadDescriptor(map, i, &descriptor); ++i) {
    if (!IsSmi(descriptor.details) || !StringEquals(descriptor.key, "name")) continue;
    const uint32_t details = static_cast<uint32_t>(SmiValue(descriptor.details));
    if ((details & 1) != 0) break;  // a getter: V8 does not call it
    if ((details >> kLocationBit & 1) != 0) return {NamePlace::kInMap, i};
    return PlaceOfField(map, static_cast<int32_t>(details >> kFieldIndexShift) & kFieldIndexMask);
  }
  return {NamePlace::kNone, 0};
}

// A map does not change: an object gets another one.
NamePlace KnownPlace(uint64_t map) {
  static constinit FactsUntilCollection<NamePlace, 7> known;
  NamePlace place;
  if (known.Find(map, &place)) return place;
  place = FindPlace(map);
  known.Remember(map, place);
  return place;
}

constexpr int32_t kFunctionProperties = 8;

// NameDictionary: an array with a header of a few numbers, then key, value, details per property. Details are a Smi,
// so a *value* "name" is not taken for a key.
uint64_t FindNameInDictionary(uint64_t dictionary) {
  const uint64_t length = ReadField(dictionary, kArrayLength);
  constexpr int32_t kMostElements = 16'384;
  int32_t count = IsSmi(length) ? SmiValue(length) : 0;
  if (count > kMostElements) count = kMostElements;
  for (int32_t i = 0; i + 1 < count; ++i) {
    const uint64_t key = ReadElement(dictionary, i);
    if (!IsHeapObject(key) || StringLength(key) != 4 || !StringEquals(key, "name")) continue;
    const uint64_t value = ReadElement(dictionary, i + 1);
    if (IsString(value)) return value;
  }
  return 0;
}

uint64_t ReadName(uint64_t function, uint64_t map, NamePlace place) {
  Descriptor descriptor;
  switch (place.kind) {
    case NamePlace::kInObject:
      return ReadField(function, place.value);
    case NamePlace::kPropertyArray:
      return ReadElement(ReadField(function, kFunctionProperties), place.value);
    case NamePlace::kDictionary:
      return FindNameInDictionary(ReadField(function, kFunctionProperties));
    case NamePlace::kInMap:
      return ReadDescriptor(map, place.value, &descriptor) ? descriptor.value : 0;
    case NamePlace::kNone:
      break;
  }
  return 0;
}

// --- different names seen, as hashes
constexpr uint32_t kMostNames = 4096;
constexpr uint32_t kNameSlots = 2 * kMostNames;
uint64_t g_names[kNameSlots];
uint32_t g_name_count;

}  // namespace

uint64_t FindOwnName(uint64_t function) {
  if (!Has(Field::kMapDescriptors) || !Has(Field::kMapBitField3)) return 0;
  function = FollowForwarding(function);
  const uint64_t map = ReadField(function, 0);
  const NamePlace place = KnownPlace(map);
  const uint64_t name = place.kind != NamePlace::kNone ? ReadName(function, map, place) : 0;
  if (!IsString(name)) return 0;  // an AccessorInfo, say: untouched
  return RememberNamedMap(map, place) ? name : 0;
}

uint32_t OwnNameBits(uint64_t function, uint64_t map, uint64_t mixed) {
  const NamedMap* entry = FindNamedMap(map, mixed);
  if (entry == nullptr || entry->place.kind == NamePlace::kInMap) return 0;
  const bool in_object = entry->place.kind == NamePlace::kInObject;
  uint64_t name = 0, hash_and_length = 0;
  if (!LoadWord(function - 1 + static_cast<uint64_t>(in_object ? entry->place.value : kFunctionProperties), &name))
    return 0;
  if (entry->place.kind == NamePlace::kPropertyArray &&
      (!IsHeapObject(name) ||
       !LoadWord(name - 1 + static_cast<uint64_t>(kArrayElements + 8 * entry->place.value), &name)))
    return 0;
  // A string's address is reused after a collection; its hash and length help where it is.
  if (IsHeapObject(name)) LoadWord(name - 1 + 8, &hash_and_length);
  return static_cast<uint32_t>(MixMap(name ^ hash_and_length << 17) >> 32);
}

bool IsWorthKeeping(const char* name, uint64_t bytes) {
  const uint64_t hash = HashBytes(name, bytes) | 1;
  for (uint64_t i = hash >> 32;; ++i) {
    uint64_t* slot = &g_names[i % kNameSlots];
    uint64_t there = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if (there == hash) return true;
    if (there != 0) continue;
    if (__atomic_load_n(&g_name_count, __ATOMIC_RELAXED) >= kMostNames) return false;
    if (__atomic_compare_exchange_n(slot, &there, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      __atomic_fetch_add(&g_name_count, 1, __ATOMIC_RELAXED);
      return true;
    }
    if (there == hash) return true;
  }
}

}  // namespace nodeleak::preload::v8
