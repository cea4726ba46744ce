// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// V8's source position tables: code offset -> position in the script's source. Deltas in variable-length numbers; the
// encoding of the code offset changed in V8 14.
// https://github.com/v8/v8/blob/12.4.254/src/codegen/source-position-table.cc
#pragma once

#include <stdint.h>

#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

enum class PositionEncoding : int32_t {
  kSignedOffset = 1,  // zigzag; a negative delta d stands for -(d + 1) and marks an expression
  kFlagBits = 2,      // plain; bits 0-1 are flags, the delta is above
};

// A position as it is packed: bit 0 external (meaningless to us), bits 1-30 offset in the source + 1, bits 31-46 number
// of the inlining + 1.
struct SourcePosition {
  uint64_t raw;
  bool external() const { return (raw & 1) != 0; }
  int32_t offset() const { return static_cast<int32_t>(raw >> 1 & 0x3fffffff) - 1; }
  int32_t inlining() const { return static_cast<int32_t>(raw >> 31 & 0xffff) - 1; }
};

bool ReadUnsigned(ByteStream* stream, uint64_t* value);
bool ReadSigned(ByteStream* stream, int64_t* value);  // zigzag

// The last entry at or before `code_offset`. Return addresses: pass offset - 1 for machine code; for bytecode the
// offset in the frame is that of the call itself. False: the table has none.
bool FindPosition(ByteStream table, PositionEncoding encoding, int64_t code_offset, SourcePosition* position);

// The same for the table object `array` of this V8.
bool FindPositionInTable(uint64_t array, int64_t code_offset, SourcePosition* position);

// Baseline code: a table of pc deltas, one entry for the prologue and then one per bytecode. Finds how many bytecodes
// lie before `pc_offset`, kPrologue or kUnknownBytecode.
constexpr int32_t kPrologue = -1, kUnknownBytecode = -2;
int32_t FindBaselineBytecodeIndex(ByteStream table, uint64_t pc_offset);

}  // namespace nodeleak::preload::v8
