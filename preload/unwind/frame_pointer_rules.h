// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// The short way to an unwind rule: a function that begins by `push %rbp` and soon does `mov %rsp,%rbp` has the same
// rule at each of its calls (a compiler makes no call before the prologue or after the epilogue). The function's start
// comes from the module's unwind table; libunwind is asked too for the first of them in each module and now and then
// later, and a module in which the two disagree once is never trusted again.
#pragma once

#include <stdint.h>

#include "preload/unwind/modules.h"
#include "preload/unwind/unwind_rules.h"

namespace nodeleak::preload {

// The rule of a return address in `module` when its function keeps rbp in the plain way; kNone: ask libunwind.
UnwindRule FramePointerRule(const ModuleInfo& module, uint64_t return_address);

// False when the module's unwind table has no entry for it: hand-written assembly, say.
bool HasUnwindEntry(const ModuleInfo& module, uint64_t return_address);

// True when it is the first byte of a function and no call can lie before it: makecontext() put it on a new stack.
bool IsPlantedStart(const ModuleInfo& module, uint64_t return_address);

// Whether libunwind should be asked as well this time, and what it said.
bool ShouldCheckFramePointers(const ModuleInfo& module);
void FramePointersChecked(const ModuleInfo& module, bool agreed);

}  // namespace nodeleak::preload
