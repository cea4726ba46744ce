// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What a function is called, and where it is: SharedFunctionInfo, its ScopeInfo and Script, read slowly and safely.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct FunctionInfo {
  uint64_t shared;         // tagged
  uint64_t script;         // tagged; 0: a builtin or a function of the embedder
  uint64_t bytecode;       // tagged; 0 when not compiled to bytecode
  uint64_t name;           // tagged string; 0: none
  uint64_t inferred_name;  // what V8 guesses from the assignment; 0: none
  int32_t script_id;
  int32_t literal_id;
  int32_t builtin;         // -1: none
  int32_t start_position;  // of the `function` token where known, else of the parameters; -1 unknown
  uint32_t flags;          // SharedFunctionInfo::flags
  bool api;                // a function template of the embedder
};

// False: `shared` is no SharedFunctionInfo, or unreadable. The caller holds the stack table's lock.
bool DescribeFunction(uint64_t shared, FunctionInfo* info);

// SharedFunctionInfo -> Script, through a DebugInfo where a debugger is attached. 0: none.
uint64_t FindScript(uint64_t shared);

// Builtins that V8 shows in stack traces carry the `native` flag.
bool IsNative(const FunctionInfo& info);

// The name of functions that V8 makes out of class fields and static blocks; nullptr for all others.
const char* FixedName(const FunctionInfo& info);

bool IsFunction(uint64_t object);

}  // namespace nodeleak::preload::v8
