// Runs inside node, also in a vfork child (in its parent's memory): no allocation, no lock. The environment that a
// child process gets: with the shim and its settings, or without them.
#pragma once

#include <stddef.h>

#include "preload/hooks/exec_target.h"

namespace nodeleak::preload {

// Copies what children need from the environment of now: NODELEAK_* and the path of the shim. Once, at start. Without
// NODELEAK_PRELOAD there, every environment is passed on as it is.
void RememberEnvironmentForChildren();

// Bytes that EnvironmentForChild may need for this environment, aligned as from alloca; 0: it is passed on as it is.
size_t RoomForEnvironment(char* const* environment);

// The environment to pass on: the caller's, or one built in `room` (nullptr: none). `replaces_us`: the exec is of the
// recorded process itself, which still is the command that was to be recorded.
char* const* EnvironmentForChild(char* const* environment, const ExecTarget& target, bool replaces_us, void* room);

}  // namespace nodeleak::preload
