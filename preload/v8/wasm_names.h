// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What a WebAssembly function is called: the "name" section of the module's bytes, which V8 keeps beside the code.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct WasmName {
  uint64_t address;  // of UTF-8 text
  uint32_t bytes;
};

// In the memory of a v8::internal::wasm::NativeModule. False: the function has no name, or the bytes were not found.
bool FindWasmName(uint64_t native_module, int32_t function_index, WasmName* name);

// The same in the bytes of a module.
bool FindNameInModule(uint64_t module, uint64_t bytes, int32_t function_index, WasmName* name);

}  // namespace nodeleak::preload::v8
