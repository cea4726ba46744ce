// Runs inside a process that was attached to. The shim's side of recording/attach_control.h.
#pragma once

namespace nodeleak::preload {

// True when the shim was loaded into a running process, rather than by LD_PRELOAD.
bool WasInjected();

// The shim is preloaded: says so to a tracer that wants to attach to this process.
void DescribePreloaded();

}  // namespace nodeleak::preload
