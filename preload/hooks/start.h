// Runs inside node. Where the shim begins: is this process to be recorded, and what is in it?
#pragma once

namespace nodeleak::preload {

// V8's frames may be met on stacks of this process, and preload/v8 may be asked.
bool HasV8();

// A library went away: whatever is remembered by address must be forgotten. Inside a Guard.
void ModulesGone();

}  // namespace nodeleak::preload
