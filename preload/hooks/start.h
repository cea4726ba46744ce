// Runs inside node. Where the shim begins when it was preloaded: is this process to be recorded, and what is in it?
// Where it begins in a process that was attached to is attach_entry.cc.
#pragma once

namespace nodeleak::preload {

// After StartRecording: the stack walk, what we know of V8, the threads.
void StartFeatures(bool is_node, bool gc_at_end);

// The process has node in it (the executable or a libnode.so).
bool IsNode();

// V8's frames may be met on stacks of this process, and preload/v8 may be asked.
bool HasV8();

// A library went away: whatever is remembered by address must be forgotten. Inside a Guard.
void ModulesGone();

}  // namespace nodeleak::preload
