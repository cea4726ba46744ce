#include "preload/v8/wasm_frames.h"

#include <string.h>

#include "preload/v8/heap_reader.h"
#include "preload/v8/layout.h"
#include "preload/v8/source_positions.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint64_t kInstanceSlot = 16;  // below rbp
constexpr int32_t kWasmScriptType = 3;  // Script::Type::kWasm

// v8::internal::wasm::WasmCode begins with {NativeModule* native_module_; uint8_t* instructions_; ...}. Where the rest
// is differs per version. By disassembly (GetSourcePositionBefore, GetInliningPosition) and by looking at live objects.
// `metadata` points to tables that follow each other: trapping instructions, relocations, source positions, inlinings.
struct WasmCodeLayout {
  int32_t major;
  int32_t size, index;
  int32_t metadata, trapping_bytes, relocation_bytes, position_bytes;
  uint32_t inlining_bytes;  // of an entry: {int32 function, [bool tail call,] SourcePosition of the call}; 0: none
};
constexpr WasmCodeLayout kWasmCode[] = {{10, 32, 48, 24, 44, 36, 40, 0},
                                        {11, 24, 44, 16, 40, 28, 32, 12},
                                        {12, 24, 44, 16, 40, 28, 32, 13},
                                        {13, 32, 56, 24, 52, 36, 40, 13},
                                        {14, 32, 56, 24, 52, 36, 40, 13}};

const WasmCodeLayout* FindWasmCodeLayout() {
  for (const WasmCodeLayout& layout : kWasmCode) {
    if (layout.major == g_layout.major) return &layout;
  }
  return nullptr;
}

bool IsWasmScript(uint64_t object) {
  if (!IsOfType(object, Field::kTypeScript)) return false;
  uint64_t type = ReadField(object, Field::kScriptType);
  return IsSmi(type) && SmiValue(type) == kWasmScriptType;
}

// The instance refers to its script directly or through the module object; the offsets move with every version, the
// type does not.
uint64_t FindWasmScript(uint64_t object, int depth) {
  constexpr int32_t kInstanceBytes = 400;
  constexpr int32_t kFirstJsObject = 1000;
  for (int32_t offset = 8; offset < kInstanceBytes; offset += 8) {
    uint64_t field = ReadField(object, offset);
    if (IsWasmScript(field)) return FollowForwarding(field);
  }
  for (int32_t offset = 8; depth > 0 && offset < kInstanceBytes; offset += 8) {
    uint64_t field = ReadField(object, offset);
    if (InstanceType(field) < kFirstJsObject) continue;
    if (uint64_t script = FindWasmScript(field, depth - 1)) return script;
  }
  return 0;
}

// --- NativeModule
struct Search {
  uint64_t pc;
  uint64_t native_module;
  const WasmCodeLayout* layout;
  uint64_t code;  // the WasmCode that holds pc
};

bool IsPointer(uint64_t word) { return word > 0x10000 && word >> 47 == 0 && (word & 7) == 0; }

// A WasmCode that belongs to the module and holds the pc?
bool Holds(uint64_t code, const Search& search) {
  uint64_t head[2];
  if (!IsPointer(code) || !ReadMemory(code, head, sizeof head) || head[0] != search.native_module) return false;
  uint32_t size = static_cast<uint32_t>(ReadInt(code + static_cast<uint64_t>(search.layout->size)));
  return search.pc > head[1] && search.pc - head[1] <= size;
}

// std::map<Address, unique_ptr<WasmCode>>: nodes {color, parent, left, right, key, value}. `word` may be its root.
bool SearchTree(uint64_t root, Search* search) {
  struct Node {
    uint32_t color, padding;  // what malloc left there
    uint64_t parent, left, right, key, value;
  } node;
  constexpr int kDeepest = 64;
  uint64_t best = 0, at = root;
  for (int depth = 0; depth < kDeepest && IsPointer(at); ++depth) {
    if (!ReadMemory(at, &node, sizeof node) || node.color > 1) return false;
    uint64_t owner = ReadWord(node.value);
    if (owner != search->native_module || ReadWord(node.value + 8) != node.key) return false;
    if (node.key < search->pc) best = node.value;
    at = node.key < search->pc ? node.right : node.left;
  }
  if (best == 0 || !Holds(best, *search)) return false;
  search->code = best;
  return true;
}

// std::vector<unique_ptr<WasmCode>> of code that was just compiled, or the table of code by function.
bool SearchArray(uint64_t first, Search* search) {
  constexpr int kMostEntries = 100'000, kMostHoles = 4096;
  uint64_t entries[64];
  int holes = 0;
  for (int i = 0; i < kMostEntries; i += 64) {
    if (!ReadMemory(first + 8 * static_cast<uint64_t>(i), entries, sizeof entries)) return false;
    for (uint64_t entry : entries) {
      if (entry == 0 && ++holes < kMostHoles) continue;
      if (!IsPointer(entry) || ReadWord(entry) != search->native_module) return false;
      if (!Holds(entry, *search)) continue;
      search->code = entry;
      return true;
    }
  }
  return false;
}

// Every word of the NativeModule is tried as what it might be: a wrong guess fails the test on the first WasmCode,
// which must point back to the module.
bool SearchNativeModule(uint64_t native_module, Search* search) {
  constexpr uint64_t kMostBytes = 1200;
  search->native_module = native_module;
  uint64_t words[kMostBytes / 8];
  if (!IsPointer(native_module) || !ReadMemory(native_module, words, sizeof words)) return false;
  for (uint64_t word : words) {
    if (IsPointer(word) && (SearchTree(word, search) || SearchArray(word, search))) return true;
  }
  return false;
}

// Managed<NativeModule> is a Foreign: -> {..., shared_ptr<NativeModule>*, ...}. The pointer's place differs.
bool SearchManaged(uint64_t managed, Search* search) {
  constexpr int32_t kForeignAddress = 8;
  uint64_t destructor = IsHeapObject(managed) ? ReadField(managed, kForeignAddress) : 0;
  uint64_t words[8];
  if (!IsPointer(destructor) || !ReadMemory(destructor, words, sizeof words)) return false;
  for (uint64_t word : words) {
    if (IsPointer(word) && SearchNativeModule(ReadWord(word), search)) return true;
  }
  return false;
}

}  // namespace

bool FindWasmPlace(uint64_t pc, uint64_t fp, WasmPlace* place) {
  *place = {};
  place->function_index = -1;
  uint64_t instance = ReadWord(fp - kInstanceSlot);
  if (!IsHeapObject(instance)) return false;
  constexpr int kNesting = 2;
  place->script = FindWasmScript(FollowForwarding(instance), kNesting);
  Search search = {pc, 0, FindWasmCodeLayout(), 0};
  if (place->script == 0 || search.layout == nullptr) return false;
  if (!SearchManaged(ReadField(place->script, Field::kScriptNativeModule), &search)) return false;
  place->native_module = search.native_module;
  place->function_index = ReadInt(search.code + static_cast<uint64_t>(search.layout->index));
  place->code = search.code;
  place->code_offset = pc - ReadWord(search.code + 8);
  return true;
}

namespace {

struct Inlining {
  int32_t function_index;
  bool tail_call;  // of the function: what it called stands in its place
  SourcePosition call;
};

bool ReadInlining(uint64_t table, uint32_t entry_bytes, int32_t number, Inlining* inlining) {
  constexpr uint32_t kWithTailCall = 13;
  uint8_t entry[kWithTailCall] = {};
  if (!ReadMemory(table + static_cast<uint64_t>(number) * entry_bytes, entry, entry_bytes)) return false;
  memcpy(&inlining->function_index, entry, 4);
  inlining->tail_call = entry_bytes == kWithTailCall && entry[4] != 0;
  memcpy(&inlining->call.raw, entry + entry_bytes - 8, 8);
  return true;
}

}  // namespace

uint32_t FindWasmCalls(const WasmPlace& place, WasmCall* calls, uint32_t most) {
  const WasmCodeLayout* layout = FindWasmCodeLayout();
  calls[0] = {place.function_index, -1, false};
  if (place.code == 0 || layout == nullptr) return 1;
  const auto field = [&](int32_t offset) {
    return static_cast<uint64_t>(static_cast<uint32_t>(ReadInt(place.code + static_cast<uint64_t>(offset))));
  };
  const uint64_t table = ReadWord(place.code + static_cast<uint64_t>(layout->metadata)) +
                         field(layout->trapping_bytes) + field(layout->relocation_bytes);
  const uint64_t bytes = field(layout->position_bytes);
  const auto encoding = static_cast<PositionEncoding>(Get(Field::kPositionTableEncoding));
  SourcePosition at;
  if (!FindPosition(ByteStream(table, bytes), encoding, static_cast<int64_t>(place.code_offset) - 1, &at)) return 1;
  uint32_t count = 0;
  bool tail_call = false;
  while (at.inlining() >= 0 && layout->inlining_bytes != 0 && count + 1 < most) {
    Inlining inlining;
    if (!ReadInlining(table + bytes, layout->inlining_bytes, at.inlining(), &inlining)) break;
    if (!tail_call) calls[count++] = {inlining.function_index, at.offset(), true};
    tail_call = inlining.tail_call;
    at = inlining.call;
  }
  const bool own = at.inlining() < 0;
  if (!tail_call || count == 0) calls[count++] = {place.function_index, own ? at.offset() : -1, false};
  return count;
}

}  // namespace nodeleak::preload::v8
