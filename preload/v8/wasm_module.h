// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What the bytes of a WebAssembly module, which V8 keeps beside the code, say of a function: its name, in the "name"
// section, and where its body is.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct WasmName {
  uint64_t address;  // of UTF-8 text
  uint32_t bytes;
};

struct WasmBytes {
  uint64_t address;
  uint64_t bytes;
};

// In the memory of a v8::internal::wasm::NativeModule.
bool FindWasmBytes(uint64_t native_module, WasmBytes* module);

// False: the function has no name. Imports count, as in the instruction `call`.
bool FindWasmName(const WasmBytes& module, int32_t function_index, WasmName* name);

// Where the function's body begins in the module: at its local variables. False: it has none, as imports have.
bool FindWasmBody(const WasmBytes& module, int32_t function_index, uint64_t* offset);

}  // namespace nodeleak::preload::v8
