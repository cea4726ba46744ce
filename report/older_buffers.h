// Outside node. Array buffers that were there before the process was attached to, as V8's own lists tell.
#pragma once

#include <optional>

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// Nothing for a program that is not node, or was not attached to.
std::optional<OlderBuffers> DescribeOlderBuffers(const recording::Recording& recording);

}  // namespace nodeleak::report
