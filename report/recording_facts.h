// Outside node. The parts of a report that come from the recording as it is, without stacks: the process, what worked,
// what was lost.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

ProcessInfo DescribeProcess(const recording::Recording& recording);
std::vector<Capability> DescribeCapabilities(const recording::Recording& recording);
// The main isolate ends, too, but after the picture.
bool EndedBeforeThePicture(const recording::Recording& recording, const recording::Isolate& isolate);
// And what it held has been freed.
bool HasLetGo(const recording::Recording& recording, const recording::Isolate& isolate);
Lost SumLosses(const recording::Recording& recording);

// One sentence for each thing a reader must know before believing the numbers.
std::vector<std::string> DescribeTroubles(const recording::Recording& recording);

}  // namespace nodeleak::report
