// Runs inside node. How a V8 frame is packed into WalkedFrame's two words, private to preload/v8.
//
//   key_a   63..60 kind | 59..32 isolate generation | 31..0 script id (kOptimized: low half of the code's identity),
//           exclusive or the bits of the closure's map and own name (closure_names.h); kBuiltin, kBuiltinExit: hash of
//           the function's name
//   key_b   63..32 function literal id | 31..0 bytecode or code offset
//           (kOptimized: high half, code offset; kBuiltin, kBuiltinExit: 0, builtin id; kWasm: pc)
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

enum class FrameKind : uint8_t {
  kInterpreted = 1,
  kBaseline,
  kOptimized,
  kBuiltin,      // JavaScript builtin in its own frame
  kBuiltinExit,  // C++ builtin such as the ArrayBuffer constructor
  kWasm,
  kFunctionOnly,  // the function is known, the place in it is not
};

inline uint64_t PackFirst(FrameKind kind, uint32_t generation, uint32_t low) {
  return static_cast<uint64_t>(kind) << 60 | static_cast<uint64_t>(generation & 0x0fffffff) << 32 | low;
}
inline uint32_t GenerationOf(uint64_t key_a) { return static_cast<uint32_t>(key_a >> 32) & 0x0fffffff; }
inline uint64_t PackPair(uint32_t high, uint32_t low) { return static_cast<uint64_t>(high) << 32 | low; }

}  // namespace nodeleak::preload::v8
