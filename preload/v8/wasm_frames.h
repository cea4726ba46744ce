// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// Which WebAssembly function a pc belongs to, and where in it. V8 has a lookup of its own, but it takes locks and may
// allocate.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct WasmPlace {
  int32_t function_index;  // -1 unknown
  uint64_t code;           // V8's C++ object for the machine code; 0 unknown
  uint64_t code_offset;    // of pc in it
  uint64_t script;         // tagged Script of the module; 0 unknown
  uint64_t native_module;  // V8's C++ object; 0 unknown
};

// `fp` is rbp of the wasm frame. False when something is missing.
bool FindWasmPlace(uint64_t pc, uint64_t fp, WasmPlace* place);

// A call that is under way in that code: in the function itself, or in one that was compiled into it.
struct WasmCall {
  int32_t function_index;
  int32_t offset;  // of the call's instruction in the function's body; -1 unknown
  bool inlined;
};
// Innermost first; the last one is the function itself. How many; a place that is not known is one call without.
uint32_t FindWasmCalls(const WasmPlace& place, WasmCall* calls, uint32_t most);

}  // namespace nodeleak::preload::v8
