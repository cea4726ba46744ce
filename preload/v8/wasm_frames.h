// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// Which WebAssembly function a pc belongs to. V8 has a lookup of its own, but it takes locks and may allocate.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct WasmPlace {
  int32_t function_index;  // -1 unknown
  uint64_t code_offset;    // of pc in the function's machine code; 0 unknown
  uint64_t script;         // tagged Script of the module; 0 unknown
  uint64_t native_module;  // V8's C++ object; 0 unknown
};

// `fp` is rbp of the wasm frame. False when something is missing.
bool FindWasmPlace(uint64_t pc, uint64_t fp, WasmPlace* place);

}  // namespace nodeleak::preload::v8
