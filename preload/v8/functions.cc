#include "preload/v8/functions.h"

#include "preload/v8/heap_reader.h"
#include "preload/v8/known_facts.h"
#include "preload/v8/strings.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr int32_t kFirstSlot = 8;  // of a ScopeInfo, after the map
// Scopes with more locals than this keep the names in a hash table of one slot.
constexpr int32_t kMostInlineNames = 75;
// ScopeFlags: scope type 0-3 ... saved class variable 10, new.target 11, function variable 12-13, inferred name 14.
// https://github.com/v8/v8/blob/12.4.254/src/objects/scope-info.tq
constexpr int kSavedClassVariableBit = 10;
constexpr int kFunctionVariableShift = 12;
constexpr int kInferredNameBit = 14;

constinit FactsUntilCollection<FunctionInfo, 8> g_known;

struct ScopeReader {
  uint64_t scope;
  uint64_t Slot(int32_t index) const { return ReadField(scope, kFirstSlot + 8 * index); }
};

bool IsNameOrNone(uint64_t value) { return value == 0 || IsString(value); }

// Where the optional slots begin: after the names and infos of the context locals.
int32_t AfterLocals(int32_t locals) {
  int32_t first = Get(Field::kScopeFirstVariableIndex);
  return first + (locals < kMostInlineNames ? 2 * locals : 1 + locals);
}

// Name at `index` (a function variable is two slots: name, slot number), the inferred name behind it. V8 before 13 has
// start and end position next.
bool ReadNames(const ScopeReader& reader, int32_t index, uint64_t flags, FunctionInfo* info) {
  bool has_variable = (flags >> kFunctionVariableShift & 3) != 0;
  bool has_inferred = (flags >> kInferredNameBit & 1) != 0;
  uint64_t name = 0, inferred = 0;
  if (has_variable) {
    name = reader.Slot(index++);
    if (!IsNameOrNone(name)) return false;
    // V8 14 leaves the slot number out.
    bool has_slot = IsSmi(reader.Slot(index));
    if (!has_slot && (g_layout.major < 14 || name == 0)) return false;
    if (has_slot) ++index;
  }
  if (has_inferred) {
    inferred = reader.Slot(index++);
    if (IsSmi(inferred) && inferred != 0) return false;
  }
  info->name = name;
  info->inferred_name = IsString(inferred) ? inferred : 0;
  bool fixed_positions = Get(Field::kScopeFirstVariableIndex) >= 5;
  uint64_t start = fixed_positions ? reader.Slot(Get(Field::kScopeFirstVariableIndex) - 2) : reader.Slot(index);
  if (IsSmi(start)) info->start_position = SmiValue(start);
  return true;
}

bool ReadScope(uint64_t scope, FunctionInfo* info) {
  ScopeReader reader = {FollowForwarding(scope)};
  uint64_t locals = reader.Slot(Get(Field::kScopeLocalCountIndex));
  uint64_t flags = reader.Slot(0);
  constexpr int32_t kMostLocals = 100'000;
  if (!IsSmi(locals) || SmiValue(locals) < 0 || SmiValue(locals) > kMostLocals) return false;
  if (flags >> 32 != 0) flags >>= 32;  // a Smi; V8 14 has a plain 32-bit field
  int32_t index = AfterLocals(SmiValue(locals));
  if ((flags >> kSavedClassVariableBit & 1) != 0) ++index;
  // A module scope has a count of module variables before the locals: try both places rather than trust the number of
  // the scope type.
  return ReadNames(reader, index, flags, info) || ReadNames(reader, index + 1, flags, info);
}

// Functions whose bytecode was thrown away keep their inferred name and start elsewhere.
void ReadUncompiled(uint64_t data, FunctionInfo* info) {
  constexpr int32_t kInferredName = 8, kStart = 16;
  uint64_t inferred = ReadField(data, kInferredName);
  if (IsString(inferred)) info->inferred_name = inferred;
  info->start_position = ReadInt(data - 1 + kStart);
}

uint64_t FindBytecodeIn(uint64_t data) {
  int32_t type = InstanceType(data);
  if (type == Get(Field::kTypeBytecodeArray)) return data;
  if (type == Get(Field::kTypeInterpreterData)) {
    for (int32_t offset = 8; offset <= 24; offset += 8) {
      uint64_t field = ReadField(data, offset);
      if (IsOfType(field, Field::kTypeBytecodeArray)) return field;
    }
  }
  return 0;
}

// function_data of a function with baseline code is that Code; its deopt data slot holds the bytecode.
uint64_t FindBytecode(uint64_t data) {
  uint64_t bytecode = FindBytecodeIn(data);
  if (bytecode != 0 || !Has(Field::kCodeDeoptData)) return bytecode;
  return IsOfType(data, Field::kTypeCode) ? FindBytecodeIn(ReadField(data, Field::kCodeDeoptData)) : 0;
}

void ReadFunctionData(uint64_t data, FunctionInfo* info) {
  if (IsSmi(data)) {
    constexpr int32_t kMostBuiltins = 8192;
    int32_t id = SmiValue(data);
    // In the trusted slot a Smi 0 only means "see the other slot".
    bool only_slot = Get(Field::kSharedUntrustedData) == Get(Field::kSharedData);
    if (id >= (only_slot ? 0 : 1) && id < kMostBuiltins) info->builtin = id;
    return;
  }
  int32_t type = InstanceType(data);
  if (uint64_t bytecode = FindBytecode(data)) info->bytecode = bytecode;
  if (Has(Field::kTypeFirstUncompiled) && type >= Get(Field::kTypeFirstUncompiled) &&
      type <= Get(Field::kTypeLastUncompiled))
    ReadUncompiled(data, info);
}

int32_t TokenPosition(uint64_t shared, int32_t start) {
  constexpr uint16_t kOutOfRange = 0xffff;
  uint16_t offset;
  if (start < 0 || !Has(Field::kSharedTokenOffset) ||
      !ReadMemory(shared - 1 + Get(Field::kSharedTokenOffset), &offset, sizeof offset) || offset == kOutOfRange)
    return start;
  return start >= offset ? start - offset : start;
}

}  // namespace

bool IsFunction(uint64_t object) {
  int32_t type = InstanceType(object);
  return type >= Get(Field::kFirstFunctionType) && type <= Get(Field::kLastFunctionType);
}

bool IsNative(const FunctionInfo& info) {
  constexpr int kNativeBit = 5;  // after the function kind
  return (info.flags >> kNativeBit & 1) != 0;
}

const char* FixedName(const FunctionInfo& info) {
  constexpr uint32_t kKindMask = 31;
  // FunctionKind from V8 12 on: members initializer 24, static initializer 25. V8 14 has two of each: 24, 25 and
  // 26, 27.
  if (g_layout.major < 12) return nullptr;
  uint32_t kind = info.flags & kKindMask;
  const uint32_t variants = g_layout.major >= 14 ? 2 : 1;
  constexpr uint32_t kFirst = 24;
  if (kind < kFirst || kind >= kFirst + 2 * variants) return nullptr;
  return kind < kFirst + variants ? "<instance_members_initializer>" : "<static_initializer>";
}

uint64_t FindScript(uint64_t shared) {
  shared = FollowForwarding(shared);
  uint64_t script = ReadField(shared, Field::kSharedScript);
  if (IsOfType(script, Field::kTypeScript)) return FollowForwarding(script);
  if (!IsOfType(script, Field::kTypeDebugInfo)) return 0;
  for (int32_t offset = 8; offset < 64; offset += 8) {
    uint64_t field = ReadField(script, offset);
    if (IsOfType(field, Field::kTypeScript)) return FollowForwarding(field);
  }
  return 0;
}

bool DescribeFunction(uint64_t shared, FunctionInfo* info) {
  if (g_known.Find(shared, info)) return true;
  *info = {};
  info->builtin = info->start_position = info->script_id = -1;
  if (!IsOfType(shared, Field::kTypeShared)) return false;
  shared = FollowForwarding(shared);
  info->shared = shared;
  info->literal_id = ReadInt(shared - 1 + Get(Field::kSharedLiteralId));
  info->flags = static_cast<uint32_t>(ReadInt(shared - 1 + Get(Field::kSharedFlags)));
  info->script = FindScript(shared);
  if (info->script != 0) info->script_id = SmiValue(ReadField(info->script, Field::kScriptId));
  uint64_t name = ReadField(shared, Field::kSharedName);
  if (IsOfType(name, Field::kTypeScopeInfo)) {
    ReadScope(name, info);
  } else if (IsString(name)) {
    info->name = name;
  }
  if (Has(Field::kSharedData)) ReadFunctionData(ReadField(shared, Field::kSharedData), info);
  if (Has(Field::kSharedUntrustedData) && Get(Field::kSharedUntrustedData) != Get(Field::kSharedData))
    ReadFunctionData(ReadField(shared, Field::kSharedUntrustedData), info);
  info->api = info->script == 0 && info->builtin < 0;
  info->start_position = TokenPosition(shared, info->start_position);
  // What is not compiled yet may be at any time; what is stays so until a collection.
  if (info->bytecode != 0) g_known.Remember(shared, *info);
  return true;
}

}  // namespace nodeleak::preload::v8
