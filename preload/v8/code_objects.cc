#include "preload/v8/code_objects.h"

#include <string.h>

#include "preload/v8/functions.h"
#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint64_t kLargestCode = 4u << 20;
constexpr uint64_t kBlock = 4096;

// Maps that turned out to be that of InstructionStream (one per isolate group; V8 never moves it).
uint64_t g_stream_maps[16];

Field StreamType() { return Has(Field::kTypeInstructionStream) ? Field::kTypeInstructionStream : Field::kTypeCode; }

bool IsKnownStreamMap(uint64_t word) {
  for (const uint64_t& map : g_stream_maps) {
    if (__atomic_load_n(&map, __ATOMIC_RELAXED) == word) return true;
  }
  return false;
}

bool LooksLikeStreamMap(uint64_t word) {
  uint16_t type;
  if (!ReadMemory(word - 1 + Get(Field::kMapInstanceType), &type, sizeof type) || type != Get(StreamType()))
    return false;
  return IsOfType(word, Field::kTypeMap);
}

void RememberStreamMap(uint64_t word) {
  for (uint64_t& map : g_stream_maps) {
    uint64_t expected = 0;
    if (IsKnownStreamMap(word) ||
        __atomic_compare_exchange_n(&map, &expected, word, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return;
  }
}

CodeTier TierOf(int32_t kind) {
  int32_t baseline = Get(Field::kCodeKindBaseline);
  if (kind == baseline) return CodeTier::kBaseline;
  // MAGLEV is in between, whether or not it is compiled in.
  if (kind == baseline + 2) return CodeTier::kTurbofan;
  return kind == baseline + 1 ? CodeTier::kMaglev : CodeTier::kOther;
}

bool ReadHeader(uint64_t header, uint64_t pc, CodeObject* code) {
  code->header = header;
  code->start = header + Get(Field::kStreamHeaderBytes);
  if (Has(Field::kStreamCode)) {
    code->code = ReadWord(header + Get(Field::kStreamCode));
    if (!IsHeapObject(code->code)) return false;
    code->code = FollowForwarding(code->code);
    // Any two words of machine code might look like a header; the Code knows better. In a collection that moved the
    // instructions it may not yet have heard: return addresses are updated first.
    if (ReadField(code->code, Field::kCodeStart) != code->start && !IsOfType(code->code, Field::kTypeCode))
      return false;
  } else {
    code->code = header | 1;
  }
  code->size = static_cast<uint32_t>(ReadInt(code->code - 1 + Get(Field::kCodeSize)));
  int32_t flags = ReadInt(code->code - 1 + Get(Field::kCodeFlags));
  code->tier = TierOf((flags & Get(Field::kCodeKindMask)) >> Get(Field::kCodeKindShift));
  return pc > code->start && pc - code->start <= code->size && code->size <= kLargestCode * 16;
}

// FNV-1a over words.
class Hash {
 public:
  void Add(uint64_t word) {
    for (int i = 0; i < 8; ++i, word >>= 8) value_ = (value_ ^ (word & 0xff)) * 0x100000001b3ull;
  }
  void AddBytes(ByteStream stream) {
    uint8_t byte;
    for (int i = 0; i < 65536 && stream.Next(&byte); ++i) value_ = (value_ ^ byte) * 0x100000001b3ull;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

void AddFunction(uint64_t shared, Hash* hash) {
  uint64_t script = FindScript(shared);
  hash->Add(script != 0 ? ReadField(script, Field::kScriptId) : 0);
  hash->Add(static_cast<uint64_t>(ReadInt(FollowForwarding(shared) - 1 + Get(Field::kSharedLiteralId))));
}

uint64_t ReadIdentity(const CodeObject& code, uint64_t function) {
  Hash hash;
  AddFunction(ReadField(FollowForwarding(function), Field::kFunctionShared), &hash);
  hash.Add(code.size);
  hash.Add(static_cast<uint64_t>(code.tier));
  uint64_t address, bytes;
  if (FindBytes(ReadField(code.code, Field::kCodePositions), &address, &bytes))
    hash.AddBytes(ByteStream(address, bytes));
  uint64_t deopt = ReadField(code.code, Field::kCodeDeoptData);
  hash.Add(ReadElement(deopt, Get(Field::kDeoptOptimizationId)) >> 32);
  InlinedFunctions inlined = ReadInlinedFunctions(code);
  for (uint32_t i = 0; i < inlined.position_count; ++i) {
    uint64_t call_position, shared;
    if (!ReadInlining(inlined, static_cast<int32_t>(i), &call_position, &shared)) continue;
    hash.Add(call_position);
    AddFunction(shared, &hash);
  }
  return hash.value();
}

// --- the cache of pcs
struct alignas(64) CachedPc {
  uint32_t sequence;  // odd while it is written
  CodeTier tier;
  uint64_t pc, header, map, code, start, identity;
};
static_assert(sizeof(CachedPc) == 64);
constexpr uint32_t kPcSets = 2048;
CachedPc g_pcs[kPcSets][2];

CachedPc* PcSet(uint64_t pc) { return g_pcs[(pc * 0x9E3779B97F4A7C15ull) >> 53]; }

// The header still says what it said. A collection puts a forwarding word in place of the map; the rest of the old copy
// stays until its page goes.
bool StillThere(const CachedPc& entry) {
  uint64_t map, code;
  if (!LoadWord(entry.header, &map) || !LoadWord(entry.header + 8, &code)) return false;
  return code == entry.code && (map == entry.map || (map & 3) == 0);
}

bool FindInSet(uint64_t pc, CodeAtPc* found) {
  CachedPc* set = PcSet(pc);
  for (int way = 0; way < 2; ++way) {
    const CachedPc& entry = set[way];
    uint32_t sequence = __atomic_load_n(&entry.sequence, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&entry.pc, __ATOMIC_RELAXED) != pc || (sequence & 1) != 0) continue;
    *found = {entry.start, entry.identity, entry.tier};
    bool valid = StillThere(entry);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (valid && __atomic_load_n(&entry.sequence, __ATOMIC_RELAXED) == sequence) return true;
  }
  return false;
}

void RememberPc(const CachedPc& filled) {
  static uint32_t turn;
  CachedPc* set = PcSet(filled.pc);
  CachedPc* entry = set[0].pc == filled.pc   ? &set[0]
                    : set[1].pc == filled.pc ? &set[1]
                                             : &set[__atomic_fetch_add(&turn, 1u, __ATOMIC_RELAXED) & 1];
  uint32_t sequence = __atomic_load_n(&entry->sequence, __ATOMIC_RELAXED);
  if ((sequence & 1) != 0 || !__atomic_compare_exchange_n(&entry->sequence, &sequence, sequence + 1, false,
                                                          __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
    return;  // another thread is writing it
  uint64_t pc = filled.pc;
  __atomic_store_n(&entry->pc, pc, __ATOMIC_RELAXED);
  entry->tier = filled.tier;
  entry->header = filled.header;
  entry->map = filled.map;
  entry->code = filled.code;
  entry->start = filled.start;
  entry->identity = filled.identity;
  __atomic_store_n(&entry->sequence, sequence + 2, __ATOMIC_RELEASE);
}

__attribute__((noinline)) bool FillPc(uint64_t pc, uint64_t function, CodeAtPc* found) {
  PageCopies copies;
  CodeObject code;
  if (!FindCodeObject(pc, &code)) return false;
  CachedPc entry = {};
  entry.pc = pc;
  entry.header = code.header;
  entry.map = ReadWord(code.header);
  entry.code = ReadWord(code.header + 8);
  entry.start = code.start;
  entry.tier = code.tier;
  if (code.tier == CodeTier::kMaglev || code.tier == CodeTier::kTurbofan) entry.identity = ReadIdentity(code, function);
  *found = {entry.start, entry.identity, entry.tier};
  if (IsHeapObject(entry.map)) RememberPc(entry);
  return true;
}

}  // namespace

namespace {

// Where a header was found before there is one still, or nothing that looks like it.
bool FindKnownCodeObject(uint64_t pc, CodeObject* code) {
  const CachedPc* set = PcSet(pc);
  for (int way = 0; way < 2; ++way) {
    if (__atomic_load_n(&set[way].pc, __ATOMIC_RELAXED) != pc) continue;
    const uint64_t header = __atomic_load_n(&set[way].header, __ATOMIC_RELAXED);
    if (IsKnownStreamMap(ReadWord(header)) && ReadHeader(header, pc, code)) return true;
  }
  return false;
}

// Backwards from pc for a header that holds it. Words that look like a map but are none that is known are asked for in
// the heap, unless `only_known`.
bool FindHeader(uint64_t pc, uint64_t lowest, bool only_known, CodeObject* code) {
  uint64_t block[kBlock / 8];
  uint64_t block_start = 0;
  uint64_t rejected[8] = {};
  int rejected_count = 0;
  for (uint64_t address = pc & ~uint64_t{7}; address > lowest; address -= 8) {
    uint64_t start = address & ~(kBlock - 1);
    if (start != block_start && !ReadMemory(start, block, sizeof block)) return false;
    block_start = start;
    uint64_t word = block[(address - start) / 8];
    if ((word & 3) != 1 || word < 0x100000 || word >> 47 != 0) continue;
    bool known = IsKnownStreamMap(word);
    if (!known) {
      if (only_known) continue;
      KernelReads reads;  // half of an instruction may look like an address
      bool seen = false;
      for (uint64_t other : rejected) seen |= other == word;
      if (seen) continue;
      if (!LooksLikeStreamMap(word)) {
        rejected[rejected_count++ & 7] = word;
        continue;
      }
    }
    if (!ReadHeader(address, pc, code)) continue;
    if (!known) RememberStreamMap(word);
    return true;
  }
  return false;
}

uint64_t Below(uint64_t pc, uint64_t bytes) { return pc > bytes ? pc - bytes : 0; }

}  // namespace

// Mostly the map is a known one and the header near: that takes no system call, which would wait for threads that
// change mappings.
bool FindCodeObject(uint64_t pc, CodeObject* code) {
  constexpr uint64_t kNear = 64 << 10;
  return FindKnownCodeObject(pc, code) || FindHeader(pc, Below(pc, kNear), true, code) ||
         FindHeader(pc, Below(pc, kLargestCode), false, code);
}

namespace {

// A search in vain reads up to 4 MiB: not again for the same pc for a while.
struct VainSearch {
  uint64_t pc;
  uint64_t until_ns;
};
VainSearch g_vain[256];

VainSearch& VainSlot(uint64_t pc) { return g_vain[(pc * 0x9E3779B97F4A7C15ull) >> 56]; }

bool WasInVain(uint64_t pc) {
  const VainSearch& slot = VainSlot(pc);
  return __atomic_load_n(&slot.pc, __ATOMIC_RELAXED) == pc &&
         CoarseMonotonicNanoseconds() < __atomic_load_n(&slot.until_ns, __ATOMIC_RELAXED);
}

void RememberVain(uint64_t pc) {
  constexpr uint64_t kPauseNs = 1'000'000'000;
  VainSearch& slot = VainSlot(pc);
  __atomic_store_n(&slot.until_ns, CoarseMonotonicNanoseconds() + kPauseNs, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.pc, pc, __ATOMIC_RELAXED);
}

}  // namespace

bool FindCodeAtPc(uint64_t pc, uint64_t function, CodeAtPc* found) {
  if (FindInSet(pc, found)) return true;
  if (WasInVain(pc)) return false;
  if (FillPc(pc, function, found)) return true;
  RememberVain(pc);
  return false;
}

InlinedFunctions ReadInlinedFunctions(const CodeObject& code) {
  InlinedFunctions inlined = {};
  uint64_t deopt = ReadField(code.code, Field::kCodeDeoptData);
  if (!IsHeapObject(deopt)) return inlined;
  deopt = FollowForwarding(deopt);
  inlined.literals = FollowForwarding(ReadElement(deopt, Get(Field::kDeoptLiterals)));
  uint64_t count = IsHeapObject(inlined.literals) ? ReadField(inlined.literals, kArrayLength) : 0;
  inlined.literal_count = IsSmi(count) ? SmiValue(count) : 0;
  uint64_t bytes;
  if (FindBytes(ReadElement(deopt, Get(Field::kDeoptInliningPositions)), &inlined.positions, &bytes))
    inlined.position_count = static_cast<uint32_t>(bytes / 16);
  return inlined;
}

bool ReadInlining(const InlinedFunctions& inlined, int32_t index, uint64_t* call_position, uint64_t* shared) {
  struct {
    uint64_t position;
    int32_t literal;
    int32_t padding;
  } entry;
  static_assert(sizeof entry == 16);
  if (index < 0 || static_cast<uint32_t>(index) >= inlined.position_count) return false;
  if (!ReadMemory(inlined.positions + 16 * static_cast<uint64_t>(index), &entry, sizeof entry)) return false;
  *call_position = entry.position;
  return ReadSharedLiteral(inlined, entry.literal, shared);
}

uint64_t ReadLiteral(const InlinedFunctions& inlined, int32_t index) {
  return index >= 0 && index < inlined.literal_count ? StripWeak(ReadElement(inlined.literals, index)) : 0;
}

bool ReadSharedLiteral(const InlinedFunctions& inlined, int32_t index, uint64_t* shared) {
  *shared = ReadLiteral(inlined, index);
  if (IsOfType(*shared, Field::kTypeSharedWrapper)) *shared = ReadField(*shared, 8);
  return IsOfType(*shared, Field::kTypeShared);
}

}  // namespace nodeleak::preload::v8
