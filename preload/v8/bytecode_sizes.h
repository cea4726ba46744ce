// Runs inside node. Sizes of V8's bytecodes: baseline code remembers how many bytecodes lie before a pc, not which
// offset they have.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

// Looks for V8's own table (exported up to V8 12), else takes the one known for this version. At start.
void FindBytecodeSizes();
bool HasBytecodeSizes();

// The offset of the bytecode with number `index` in a BytecodeArray. -1: unknown.
int32_t FindBytecodeOffset(uint64_t bytecode_array, int32_t index);

}  // namespace nodeleak::preload::v8
