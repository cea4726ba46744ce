#include "preload/v8/layout.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "preload/recorder/recorder.h"
#include "preload/v8/module.h"

namespace nodeleak::preload::v8 {

LayoutTable g_layout;
Features g_features;

namespace {

constexpr int32_t kNo = kAbsentValue;
constexpr int kFirstMajor = 10;
constexpr int kMajors = 5;

// Where a value comes from, in this order: one of `symbols`; `base` + `delta` (fields that have been neighbours in all
// versions looked at); `known` of this V8's major.
struct Row {
  Field field;
  const char* name;
  const char* symbols[3];
  Field base;
  int32_t delta;
  int32_t known[kMajors];  // 10 (node 18), 11 (20), 12 (22), 13 (24), 14 (26)
};
constexpr Field kNoBase = Field::kCount;

#define SAME(v) \
  { v, v, v, v, v }
// Sources: v8dbg_* of the five official binaries; what they lack by dumping live objects and disassembly.
constexpr Row kRows[] = {
    {Field::kFrameContext,
     "frame: context or type",
     {"off_fp_context_or_frame_type", "off_fp_context"},
     kNoBase,
     0,
     SAME(-8)},
    {Field::kFrameFunction, "frame: function", {"off_fp_function"}, kNoBase, 0, SAME(-16)},
    {Field::kFrameBytecodeArray, "frame: bytecode array", {"off_fp_bytecode_array"}, kNoBase, 0, SAME(-32)},
    {Field::kFrameBytecodeOffset, "frame: bytecode offset", {"off_fp_bytecode_offset"}, kNoBase, 0, SAME(-40)},
    {Field::kTypeEntryFrame, "frame type: entry", {"frametype_EntryFrame"}, kNoBase, 0, SAME(1)},
    {Field::kTypeConstructEntryFrame,
     "frame type: construct entry",
     {"frametype_ConstructEntryFrame"},
     kNoBase,
     0,
     SAME(2)},
    {Field::kTypeBuiltinExitFrame,
     "frame type: builtin exit",
     {"frametype_BuiltinExitFrame"},
     kNoBase,
     0,
     {22, 25, 26, 27, 17}},
    {Field::kTypeWasmFrame, "frame type: wasm", {"frametype_WasmFrame"}, kNoBase, 0, {4, 4, 4, 4, 24}},
    {Field::kTypeJsContinuationFrame,
     "frame type: builtin continuation",
     {"frametype_JavaScriptBuiltinContinuationFrame"},
     kNoBase,
     0,
     {17, 20, 20, 21, 11}},
    {Field::kTypeJsContinuationCatchFrame,
     "frame type: builtin continuation, catch",
     {"frametype_JavaScriptBuiltinContinuationWithCatchFrame"},
     Field::kTypeJsContinuationFrame,
     1,
     {18, 21, 21, 22, 12}},
    {Field::kMapInstanceType, "Map::instance_type", {"class_Map__instance_type__uint16_t"}, kNoBase, 0, SAME(12)},
    {Field::kMapBitField3, "Map::bit_field3", {"class_Map__bit_field3__int"}, kNoBase, 0, SAME(16)},
    {Field::kMapDescriptors,
     "Map::instance_descriptors",
     {"class_Map__instance_descriptors_offset"},
     kNoBase,
     0,
     SAME(40)},
    {Field::kDescriptorsHeader,
     "DescriptorArray: header size",
     {"class_DescriptorArray__header_size__uintptr_t"},
     kNoBase,
     0,
     {24, 24, 24, 24, 32}},
    {Field::kMapInstanceSizeWords,
     "Map::instance_size_in_words",
     {"class_Map__instance_size_in_words__char"},
     kNoBase,
     0,
     SAME(8)},
    {Field::kMapInObjectStartWords,
     "Map::inobject_properties_start",
     {"class_Map__inobject_properties_start_or_constructor_function_index__char"},
     kNoBase,
     0,
     SAME(9)},
    {Field::kFunctionShared,
     "JSFunction::shared",
     {"class_JSFunction__shared__SharedFunctionInfo"},
     kNoBase,
     0,
     {24, 24, 32, 32, 32}},
    {Field::kFirstFunctionType,
     "first JSFunction type",
     {"FirstJSFunctionType", "type_JSFunction__JS_FUNCTION_TYPE"},
     kNoBase,
     0,
     {2065, 2066, 2066, 2065, 2066}},
    {Field::kLastFunctionType,
     "last JSFunction type",
     {"LastJSFunctionType"},
     Field::kFirstFunctionType,
     15,
     {2080, 2081, 2082, 2081, 2082}},
    {Field::kSharedData,
     "SharedFunctionInfo::function_data",
     {"class_SharedFunctionInfo__function_data__Object"},
     kNoBase,
     0,
     SAME(8)},
    {Field::kSharedUntrustedData, "SharedFunctionInfo::untrusted_function_data", {}, kNoBase, 0, {8, 8, 8, 16, 16}},
    {Field::kSharedName,
     "SharedFunctionInfo::name_or_scope_info",
     {"class_SharedFunctionInfo__name_or_scope_info__Object",
      "class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_",
      "class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_"},
     kNoBase,
     0,
     {16, 16, 16, 24, 24}},
    {Field::kSharedScript,
     "SharedFunctionInfo::script",
     {"class_SharedFunctionInfo__script__Tagged_HeapObject_",
      "class_SharedFunctionInfo__script_or_debug_info__HeapObject"},
     kNoBase,
     0,
     {32, 32, 32, 40, 40}},
    {Field::kSharedFlags,
     "SharedFunctionInfo::flags",
     {"class_SharedFunctionInfo__flags__int"},
     kNoBase,
     0,
     {48, 48, 48, 56, 56}},
    {Field::kSharedLiteralId,
     "SharedFunctionInfo::function_literal_id",
     {},
     Field::kSharedFlags,
     4,
     {52, 52, 52, 60, 60}},
    {Field::kSharedTokenOffset,
     "SharedFunctionInfo::raw_function_token_offset",
     {"class_SharedFunctionInfo__raw_function_token_offset__int16_t"},
     kNoBase,
     0,
     {44, 44, 44, 52, 52}},
    {Field::kScriptSource, "Script::source", {"class_Script__source__Object"}, kNoBase, 0, SAME(8)},
    {Field::kScriptName, "Script::name", {"class_Script__name__Object"}, kNoBase, 0, SAME(16)},
    {Field::kScriptLineOffset, "Script::line_offset", {}, Field::kScriptName, 8, SAME(24)},
    {Field::kScriptColumnOffset, "Script::column_offset", {}, Field::kScriptName, 16, SAME(32)},
    {Field::kScriptType, "Script::type", {"class_Script__type__SMI"}, kNoBase, 0, SAME(48)},
    {Field::kScriptLineEnds, "Script::line_ends", {"class_Script__line_ends__Object"}, kNoBase, 0, SAME(56)},
    {Field::kScriptId, "Script::id", {}, Field::kScriptLineEnds, 8, SAME(64)},
    {Field::kScriptEvalFromShared,
     "Script::eval_from_shared",
     {"class_Script__eval_from_shared_or_wrapped_arguments__Tagged_Object_",
      "class_Script__eval_from_shared_or_wrapped_arguments__Object",
      "class_Script__eval_from_shared_or_wrapped_arguments_or_sfi_table__Object"},
     kNoBase,
     0,
     SAME(72)},
    {Field::kScriptEvalFromPosition,
     "Script::eval_from_position",
     {"class_Script__eval_from_position__SMI"},
     kNoBase,
     0,
     SAME(80)},
    {Field::kScriptNativeModule,
     "Script::wasm_managed_native_module",
     {"class_Script__wasm_managed_native_module__Tagged_Object_", "class_Script__wasm_managed_native_module__Object"},
     kNoBase,
     0,
     SAME(80)},
    {Field::kScriptSourceUrl, "Script::source_url", {}, kNoBase, 0, {104, 112, 112, 112, 112}},
    {Field::kScopeLocalCountIndex,
     "ScopeInfo: index of local count",
     {"scopeinfo_idx_ncontextlocals"},
     kNoBase,
     0,
     SAME(2)},
    {Field::kScopeFirstVariableIndex,
     "ScopeInfo: index of first variable",
     {"scopeinfo_idx_first_vars"},
     kNoBase,
     0,
     {3, 3, 3, 5, 5}},
    {Field::kContextScopeIndex, "Context: index of ScopeInfo", {"context_idx_scope_info"}, kNoBase, 0, SAME(0)},
    {Field::kContextPreviousIndex, "Context: index of outer context", {"context_idx_prev"}, kNoBase, 0, SAME(1)},
    {Field::kBytecodeFirst,
     "BytecodeArray: first bytecode",
     {"class_BytecodeArray__data__uintptr_t"},
     kNoBase,
     0,
     {56, 54, 64, 64, 64}},
    {Field::kBytecodePositions, "BytecodeArray::source_position_table", {}, kNoBase, 0, {32, 32, 24, 24, 24}},
    {Field::kStreamCode, "InstructionStream::code", {}, kNoBase, 0, {kNo, 8, 8, 8, 8}},
    {Field::kStreamHeaderBytes,
     "InstructionStream: header size",
     {"class_InstructionStream__instruction_start__uintptr_t", "class_Code__instruction_start__uintptr_t"},
     kNoBase,
     0,
     {128, 16, 32, 32, 32}},
    {Field::kCodeDeoptData,
     "Code::deoptimization_data",
     {"class_Code__deoptimization_data__FixedArray"},
     kNoBase,
     0,
     {16, 16, 8, 8, 8}},
    {Field::kCodePositions,
     "Code::source_position_table",
     {"class_Code__source_position_table__ByteArray"},
     kNoBase,
     0,
     {24, 24, 16, 16, 16}},
    {Field::kCodeStart,
     "Code::instruction_start",
     {"class_Code__instruction_start__Address"},
     kNoBase,
     0,
     {kNo, 40, 40, 40, 40}},
    {Field::kCodeFlags, "Code::flags", {"class_Code__flags__uint32_t"}, kNoBase, 0, {48, 48, 48, 52, 52}},
    {Field::kCodeSize,
     "Code::instruction_size",
     {"class_Code__instruction_size__int"},
     kNoBase,
     0,
     {40, 56, 52, 56, 56}},
    {Field::kCodeMetadataSize, "Code::metadata_size", {}, Field::kCodeSize, 4, {44, 60, 56, 60, 60}},
    {Field::kCodeKindMask, "Code flags: kind mask", {"CodeKindFieldMask"}, kNoBase, 0, SAME(15)},
    {Field::kCodeKindShift, "Code flags: kind shift", {"CodeKindFieldShift"}, kNoBase, 0, SAME(0)},
    {Field::kCodeKindBaseline, "CodeKind::BASELINE", {"CodeKindBaseline"}, kNoBase, 0, {11, 11, 10, 10, 11}},
    {Field::kDeoptTranslations, "DeoptimizationData: frame translations (index)", {}, kNoBase, 0, SAME(0)},
    {Field::kDeoptLiterals,
     "DeoptimizationData: literals (index)",
     {"DeoptimizationDataLiteralArrayIndex"},
     kNoBase,
     0,
     {2, 2, 2, 3, 3}},
    {Field::kDeoptOptimizationId,
     "DeoptimizationData: optimization id (index)",
     {"DeoptimizationDataOptimizationIdIndex"},
     kNoBase,
     0,
     {5, 5, 5, 6, 6}},
    {Field::kDeoptInliningPositions,
     "DeoptimizationData: inlining positions (index)",
     {"DeoptimizationDataInliningPositionsIndex"},
     kNoBase,
     0,
     {7, 7, 7, 8, 8}},
    {Field::kDeoptFirstEntry,
     "DeoptimizationData: first entry (index)",
     {},
     Field::kDeoptInliningPositions,
     4,
     {11, 11, 11, 12, 12}},
    {Field::kSafepointLengthOffset, "SafepointTable: length", {}, kNoBase, 0, {0, 0, 0, 4, 4}},
    {Field::kSafepointHeaderBytes, "SafepointTable: header size", {}, kNoBase, 0, {8, 8, 8, 12, 12}},
    {Field::kPositionTableEncoding, "source position table: encoding", {}, kNoBase, 0, {1, 1, 1, 1, 2}},
    {Field::kStringLength, "String::length", {"class_String__length__int32_t"}, kNoBase, 0, SAME(12)},
    {Field::kStringFirstPart, "ConsString::first", {"class_ConsString__first__String"}, kNoBase, 0, SAME(16)},
    {Field::kStringSecondPart, "ConsString::second", {"class_ConsString__second__String"}, kNoBase, 0, SAME(24)},
    {Field::kTypeMap, "type of Map", {"type_Map__MAP_TYPE"}, kNoBase, 0, {250, 255, 264, 272, 278}},
    {Field::kTypeShared,
     "type of SharedFunctionInfo",
     {"type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE"},
     kNoBase,
     0,
     {257, 262, 274, 282, 288}},
    {Field::kTypeScript, "type of Script", {"type_Script__SCRIPT_TYPE"}, kNoBase, 0, {170, 167, 167, 167, 166}},
    {Field::kTypeScopeInfo,
     "type of ScopeInfo",
     {"type_ScopeInfo__SCOPE_INFO_TYPE"},
     kNoBase,
     0,
     {256, 261, 272, 280, 286}},
    {Field::kTypeBytecodeArray,
     "type of BytecodeArray",
     {"type_BytecodeArray__BYTECODE_ARRAY_TYPE"},
     kNoBase,
     0,
     {195, 191, 205, 186, 185}},
    {Field::kTypeCode, "type of Code", {"type_Code__CODE_TYPE"}, kNoBase, 0, {240, 245, 206, 187, 186}},
    {Field::kTypeInstructionStream,
     "type of InstructionStream",
     {"type_InstructionStream__INSTRUCTION_STREAM_TYPE"},
     kNoBase,
     0,
     {kNo, 252, 210, 192, 192}},
    {Field::kTypeFixedArray,
     "type of FixedArray",
     {"type_FixedArray__FIXED_ARRAY_TYPE"},
     kNoBase,
     0,
     {179, 175, 174, 205, 205}},
    {Field::kTypeByteArray,
     "type of ByteArray",
     {"type_ByteArray__BYTE_ARRAY_TYPE"},
     kNoBase,
     0,
     {194, 190, 186, 217, 218}},
    {Field::kTypeTrustedByteArray,
     "type of TrustedByteArray",
     {"type_TrustedByteArray__TRUSTED_BYTE_ARRAY_TYPE"},
     kNoBase,
     0,
     {kNo, kNo, 212, 196, 196}},
    {Field::kTypeInterpreterData,
     "type of InterpreterData",
     {"type_InterpreterData__INTERPRETER_DATA_TYPE"},
     kNoBase,
     0,
     {162, 159, 207, 188, 187}},
    {Field::kTypeDebugInfo,
     "type of DebugInfo",
     {"type_DebugInfo__DEBUG_INFO_TYPE"},
     kNoBase,
     0,
     {156, 153, 154, 154, 153}},
    {Field::kTypeSharedWrapper,
     "type of SharedFunctionInfoWrapper",
     {"type_SharedFunctionInfoWrapper__SHARED_FUNCTION_INFO_WRAPPER_TYPE"},
     kNoBase,
     0,
     {kNo, kNo, kNo, 195, 195}},
    {Field::kTypeFirstUncompiled,
     "first UncompiledData type",
     {"type_UncompiledDataWithPreparseData__UNCOMPILED_DATA_WITH_PREPARSE_DATA_TYPE"},
     kNoBase,
     -0,
     {217, 220, 201, 175, 174}},
    {Field::kTypeLastUncompiled,
     "last UncompiledData type",
     {"type_UncompiledDataWithoutPreparseDataWithJob__UNCOMPILED_DATA_WITHOUT_PREPARSE_DATA_WITH_JOB_TYPE"},
     kNoBase,
     0,
     {220, 223, 203, 178, 177}},
    {Field::kFirstContextType, "first Context type", {"FirstContextType"}, kNoBase, 0, SAME(kNo)},
    {Field::kLastContextType, "last Context type", {"LastContextType"}, kNoBase, 0, SAME(kNo)},
};
#undef SAME
constexpr size_t kRowCount = sizeof kRows / sizeof kRows[0];
static_assert(kRowCount == static_cast<size_t>(Field::kCount), "one row per field");
constexpr bool RowsInOrder() {
  for (size_t i = 0; i < kRowCount; ++i) {
    if (static_cast<size_t>(kRows[i].field) != i) return false;
  }
  return true;
}
static_assert(RowsInOrder(), "rows in the order of the enum");

bool LoadSymbol(const char* suffix, int32_t* value) {
  char name[160] = "v8dbg_";
  size_t prefix = strlen(name);
  if (strlen(suffix) + prefix >= sizeof name) return false;
  memcpy(name + prefix, suffix, strlen(suffix) + 1);
  return ReadModuleInt(name, value);
}

void LoadRow(const Row& row) {
  int index = static_cast<int>(row.field);
  g_layout.values[index] = kAbsentValue;
  g_layout.states[index] = FieldState::kAbsent;
  for (const char* symbol : row.symbols) {
    if (symbol == nullptr || !LoadSymbol(symbol, &g_layout.values[index])) continue;
    g_layout.states[index] = FieldState::kLoaded;
    return;
  }
  int major = g_layout.major - kFirstMajor;
  if (major >= 0 && major < kMajors) {
    g_layout.values[index] = row.known[major];
    g_layout.states[index] = row.known[major] == kNo ? FieldState::kAbsent : FieldState::kAssumed;
  }
  if (row.base == kNoBase) return;
  int base = static_cast<int>(row.base);
  if (g_layout.states[base] != FieldState::kLoaded) return;
  g_layout.values[index] = g_layout.values[base] + row.delta;
  g_layout.states[index] = FieldState::kAssumed;
}

// V8's own idea of its version: a pair of ints it exports, else the text of the public API.
void LoadVersion() {
  if (ReadModuleInt("_ZN2v88internal7Version6major_E", &g_layout.major) &&
      ReadModuleInt("_ZN2v88internal7Version6minor_E", &g_layout.minor))
    return;
  auto version = reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "_ZN2v82V810GetVersionEv"));
  const char* text = version != nullptr ? version() : "";
  for (; *text >= '0' && *text <= '9'; ++text) g_layout.major = g_layout.major * 10 + (*text - '0');
  if (*text == '.') ++text;
  for (; *text >= '0' && *text <= '9'; ++text) g_layout.minor = g_layout.minor * 10 + (*text - '0');
}

bool AllOf(const Field* fields, size_t count, bool* all_loaded) {
  for (size_t i = 0; i < count; ++i) {
    if (!Has(fields[i])) return false;
    if (g_layout.states[static_cast<int>(fields[i])] != FieldState::kLoaded) *all_loaded = false;
  }
  return true;
}

// What each capability rests on.
constexpr Field kForFrames[] = {Field::kFrameContext,        Field::kFrameFunction,  Field::kFrameBytecodeArray,
                                Field::kFrameBytecodeOffset, Field::kFunctionShared, Field::kSharedScript,
                                Field::kSharedLiteralId,     Field::kScriptId};
constexpr Field kForNames[] = {
    Field::kMapInstanceType, Field::kSharedName,    Field::kScriptName,           Field::kTypeShared,
    Field::kTypeScript,      Field::kTypeScopeInfo, Field::kScopeLocalCountIndex, Field::kScopeFirstVariableIndex,
    Field::kStringLength};
constexpr Field kForLines[] = {Field::kBytecodeFirst, Field::kBytecodePositions, Field::kPositionTableEncoding,
                               Field::kScriptSource,  Field::kScriptLineEnds,    Field::kTypeByteArray};
constexpr Field kForOptimized[] = {
    Field::kStreamHeaderBytes, Field::kCodeDeoptData,    Field::kCodePositions, Field::kCodeFlags,
    Field::kCodeSize,          Field::kCodeKindBaseline, Field::kDeoptLiterals, Field::kDeoptInliningPositions,
    Field::kTypeCode};
constexpr Field kForWasm[] = {Field::kTypeWasmFrame, Field::kScriptNativeModule, Field::kScriptType};

template <size_t n>
bool Decide(recording::CapabilityId id, const Field (&fields)[n], bool depends_on) {
  bool all_loaded = true;
  bool on = depends_on && AllOf(fields, n, &all_loaded);
  bool known_major = g_layout.major >= kFirstMajor && g_layout.major < kFirstMajor + kMajors;
  if (!on) {
    SetCapability(id, recording::CapabilityState::kAbsent, "the layout of this V8 version is not known");
  } else if (!all_loaded && (!g_layout.metadata || !known_major)) {
    SetCapability(id, recording::CapabilityState::kDegraded, "parts of the layout of V8 objects are assumed");
  } else {
    SetCapability(id, recording::CapabilityState::kFull, "");
  }
  return on;
}

}  // namespace

void LoadLayout() {
  LoadVersion();
  int32_t tag = 0;
  g_layout.metadata = LoadSymbol("HeapObjectTag", &tag);
  for (const Row& row : kRows) LoadRow(row);
  // The other encodings of tagged values (pointer compression, 31-bit Smis) are other worlds: nothing below fits them.
  int32_t smi_shift = 31, tagged_bytes = 8;
  LoadSymbol("SmiShiftSize", &smi_shift);
  LoadSymbol("TaggedSize", &tagged_bytes);
  bool plain = (!g_layout.metadata || tag == 1) && smi_shift == 31 && tagged_bytes == 8;
  using recording::CapabilityId;
  g_features.frames = Decide(CapabilityId::kJsFrames, kForFrames, plain);
  g_features.names = Decide(CapabilityId::kJsNames, kForNames, g_features.frames);
  g_features.lines = Decide(CapabilityId::kJsLines, kForLines, g_features.names);
  g_features.optimized = Decide(CapabilityId::kOptimizedFrames, kForOptimized, g_features.lines);
  g_features.wasm = Decide(CapabilityId::kWasmFrames, kForWasm, g_features.names);
}

void ForEachLayoutRow(void (*visit)(const LayoutRow& row, void* context), void* context) {
  for (const Row& row : kRows) {
    int index = static_cast<int>(row.field);
    const char* symbol = row.symbols[0] != nullptr ? row.symbols[0] : "";
    visit({row.name, symbol, g_layout.values[index], g_layout.states[index]}, context);
  }
}

}  // namespace nodeleak::preload::v8
