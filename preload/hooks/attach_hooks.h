// Runs inside a process that was attached to. Which functions the tracer hooks there.
#pragma once

#include "recording/attach_control.h"

namespace nodeleak::preload {

// Fills in what this build of the shim knows: the rows and the places. What a tracer wrote into a row (its patch)
// stays.
void DescribeAttachHooks(recording::AttachControl* control);

}  // namespace nodeleak::preload
