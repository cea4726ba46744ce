// Runs inside node. The ends and the beginnings of processes: exit and its like, abort, fork.
#pragma once

#include <stdint.h>

namespace nodeleak::preload {

// Once, on the main thread, in a process that is to be recorded: finds the originals, remembers the environment that
// children need, and registers for the end of main() (first registered, so last called) and for fork. Without it every
// hook of process events passes its call through.
void StartProcessHooks();

// True in the process that records. False in a vfork child, which runs in our memory, and in a forked one.
bool InRecordedProcess();

}  // namespace nodeleak::preload
