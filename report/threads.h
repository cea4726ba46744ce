// Outside node. What a thread is called: main, "worker 3", "libuv pool", "V8 workers", or its own name.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/frames.h"

namespace nodeleak::report {

// One name per thread of the recording.
std::vector<std::string> ThreadNames(const recording::Recording& recording, const FrameTable& frames);

}  // namespace nodeleak::report
