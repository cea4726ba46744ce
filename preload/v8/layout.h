// Runs inside node. What we know of this V8's objects: ONE table. Each row is a field, the v8dbg_* symbol it comes from
// (gdb metadata that V8 exports: "postmortem debugging"), the value known for each V8 major, and how sure we are.
//
// Loaded once at start; afterwards every reader takes plain ints. A field that is absent is kAbsentValue: code that
// needs it asks Has() first and degrades. Values are byte offsets from the untagged object start unless a name says
// otherwise.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

enum class Field : uint8_t {
  // frames (offsets from rbp, and types)
  kFrameContext,
  kFrameFunction,
  kFrameBytecodeArray,
  kFrameBytecodeOffset,
  kTypeEntryFrame,
  kTypeConstructEntryFrame,
  kTypeBuiltinExitFrame,
  kTypeWasmFrame,
  kTypeJsContinuationFrame,
  kTypeJsContinuationCatchFrame,
  // maps and functions
  kMapInstanceType,
  kMapBitField3,
  kMapDescriptors,
  kDescriptorsHeader,
  kMapInstanceSizeWords,
  kMapInObjectStartWords,
  kFunctionShared,
  kFirstFunctionType,
  kLastFunctionType,
  kSharedData,
  kSharedUntrustedData,
  kSharedName,
  kSharedScript,
  kSharedFlags,
  kSharedLiteralId,
  kSharedTokenOffset,
  // scripts
  kScriptSource,
  kScriptName,
  kScriptLineOffset,
  kScriptColumnOffset,
  kScriptType,
  kScriptLineEnds,
  kScriptId,
  kScriptEvalFromShared,
  kScriptEvalFromPosition,
  kScriptNativeModule,
  kScriptSourceUrl,
  // scope infos (indices of 8-byte slots after the map)
  kScopeLocalCountIndex,
  kScopeFirstVariableIndex,
  // contexts (indices as of an array's elements)
  kContextScopeIndex,
  kContextPreviousIndex,
  // bytecode
  kBytecodeFirst,
  kBytecodePositions,
  // code objects
  kStreamCode,
  kStreamHeaderBytes,
  kCodeDeoptData,
  kCodePositions,
  kCodeStart,
  kCodeFlags,
  kCodeSize,
  kCodeMetadataSize,
  kCodeKindMask,
  kCodeKindShift,
  kCodeKindBaseline,
  kDeoptTranslations,
  kDeoptLiterals,
  kDeoptOptimizationId,
  kDeoptInliningPositions,
  kDeoptFirstEntry,
  kSafepointLengthOffset,
  kSafepointHeaderBytes,
  kPositionTableEncoding,  // 1: zigzag with the sign as statement bit; 2: bits 0-1 flags
  // strings
  kStringLength,
  kStringFirstPart,  // cons first, thin actual, sliced parent, external resource
  kStringSecondPart,
  // instance types
  kTypeMap,
  kTypeShared,
  kTypeScript,
  kTypeScopeInfo,
  kTypeBytecodeArray,
  kTypeCode,
  kTypeInstructionStream,
  kTypeFixedArray,
  kTypeByteArray,
  kTypeTrustedByteArray,
  kTypeInterpreterData,
  kTypeDebugInfo,
  kTypeSharedWrapper,
  kTypeFirstUncompiled,
  kTypeLastUncompiled,
  kFirstContextType,
  kLastContextType,
  kCount
};
inline constexpr int32_t kAbsentValue = INT32_MIN;

enum class FieldState : uint8_t { kAbsent, kAssumed, kLoaded };

struct LayoutTable {
  int32_t values[static_cast<int>(Field::kCount)];
  FieldState states[static_cast<int>(Field::kCount)];
  int32_t major, minor;
  bool metadata;  // v8dbg_* symbols were found
};
extern LayoutTable g_layout;

inline int32_t Get(Field field) { return g_layout.values[static_cast<int>(field)]; }
inline bool Has(Field field) { return Get(field) != kAbsentValue; }

// A feature is on when every field it needs is there.
struct Features {
  bool frames, names, lines, optimized, baseline, wasm;
};
extern Features g_features;

// Fills the table. Names and line features that rest on assumed fields are reported as degraded.
void LoadLayout();

// For `doctor`: one call per row.
struct LayoutRow {
  const char* name;
  const char* symbol;  // "" : V8 does not export it
  int32_t value;
  FieldState state;
};
void ForEachLayoutRow(void (*visit)(const LayoutRow& row, void* context), void* context);

}  // namespace nodeleak::preload::v8
