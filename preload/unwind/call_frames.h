// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws; reads the module's own
// unwind tables, nothing else.
//
// Call frame information (DWARF 5, section 6.4; .eh_frame as in the Linux Standard Base, chapter 10) in the forms that
// compilers emit for ordinary functions on x86-64: CFA from rsp or rbp plus an offset, the return address just below
// it, rbp saved at an offset or not at all. All else is libunwind's.
#pragma once

#include <stdint.h>

#include "preload/unwind/modules.h"
#include "preload/unwind/unwind_rules.h"

namespace nodeleak::preload {

// The rule for the caller's frame of the function that this address returns into: kFrame or kEnd (no caller). kNone:
// not in one of these forms. kFramePointer: the tables say nothing of it (hand-written assembly).
UnwindRule RuleFromTables(const ModuleInfo& module, uint64_t return_address);

}  // namespace nodeleak::preload
