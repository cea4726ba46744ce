// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What V8 would do to leave optimized code at a call: the unoptimized frames, inlined functions and inlined builtins
// (Array.map) among them, with their bytecode offsets. Exact also for code that the source position table does not
// cover (Maglev's slow paths), but its encoding changes with every V8, so only known versions are read.
#pragma once

#include <stdint.h>

#include "preload/v8/code_objects.h"

namespace nodeleak::preload::v8 {

struct SafepointEntry {
  uint32_t pc_offset;   // of the call, also when a lazy deoptimization has redirected its return
  int32_t deopt_index;  // -1: none
};
// False: no call returns there.
bool FindSafepoint(const CodeObject& code, uint32_t pc_offset, SafepointEntry* entry);

struct UnoptimizedFrame {
  int32_t bytecode_offset;
  int32_t literal;    // of the SharedFunctionInfo among the code's literals
  bool continuation;  // of a builtin
  // Where the closure is: the operand of the first value of the frame, a literal or a stack slot. -1: elsewhere.
  int32_t closure;
};
// Outermost first; the number of frames, 0: unknown.
int ReadDeoptFrames(const CodeObject& code, int32_t deopt_index, UnoptimizedFrame* frames, int capacity);

}  // namespace nodeleak::preload::v8
