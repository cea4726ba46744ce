// Runs inside node, on any thread, possibly inside malloc or a collection. Never allocates, waits or throws.
//
// From a pc in JIT memory to V8's code object, without any table of V8's: the header of the instruction stream lies
// before the instructions and is found by scanning back once; then the pc is remembered and a hit is checked by two
// loads.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

enum class CodeTier : uint8_t { kOther = 0, kBaseline, kMaglev, kTurbofan };

struct CodeObject {
  uint64_t header;  // address of the InstructionStream (V8 10: of the Code)
  uint64_t code;    // tagged Code
  uint64_t start;   // first instruction
  uint32_t size;
  CodeTier tier;
};

// Slow: scans memory back from pc. False: no code object there (or its header is being moved by a collection).
bool FindCodeObject(uint64_t pc, CodeObject* code);

// What a walk needs of a JIT frame. `identity` is a hash of the code's content that survives collections: equal code
// has equal identities.
struct CodeAtPc {
  uint64_t start;
  uint64_t identity;
  CodeTier tier;
};
// Fast for pcs seen before. `function` is the frame's JSFunction (part of the identity).
bool FindCodeAtPc(uint64_t pc, uint64_t function, CodeAtPc* found);

// DeoptimizationData of optimized code.
struct InlinedFunctions {
  uint64_t literals;  // tagged array
  int32_t literal_count;
  uint64_t positions;  // address of 16-byte entries
  uint32_t position_count;
};
InlinedFunctions ReadInlinedFunctions(const CodeObject& code);
// The inlining at `index`: where it was called (raw SourcePosition) and what (tagged SharedFunctionInfo). False: none.
bool ReadInlining(const InlinedFunctions& inlined, int32_t index, uint64_t* call_position, uint64_t* shared);
// A literal of the code, tagged; 0: none. And the SharedFunctionInfo there.
uint64_t ReadLiteral(const InlinedFunctions& inlined, int32_t index);
bool ReadSharedLiteral(const InlinedFunctions& inlined, int32_t index, uint64_t* shared);

}  // namespace nodeleak::preload::v8
