// Outside node. Verdicts of whole kinds.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// One for each of `kinds`. The heaviest group of V8's pages gets the verdict of the JavaScript heap.
std::vector<KindVerdict> JudgeKinds(const recording::Recording& recording, const std::vector<KindTotal>& kinds,
                                    const std::vector<std::string>& command, std::vector<Group>* groups);

}  // namespace nodeleak::report
