// Outside node. What became of each isolate that was asked for a full collection.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// In the order in which they were met: main first.
std::vector<IsolateAnswer> DescribeAnswers(const recording::Recording& recording,
                                           const std::vector<std::string>& thread_names);

}  // namespace nodeleak::report
