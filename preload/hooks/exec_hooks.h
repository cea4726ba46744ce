// Runs inside node, also in a vfork child (in its parent's memory): no allocation, no lock.
#pragma once

namespace nodeleak::preload {

// Copies what children need from the environment of now: NODELEAK_* and the path of the shim. Once, at start. Without
// NODELEAK_PRELOAD there, the hooks pass everything through.
void RememberEnvironmentForChildren();

}  // namespace nodeleak::preload
