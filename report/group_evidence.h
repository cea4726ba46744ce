// Outside node. Gathers what a verdict needs: birth times and GC counts of what is outstanding, and from the
// checkpoints how much was allocated when.
#pragma once

#include <vector>

#include "recording/recording.h"
#include "report/collectors.h"
#include "report/grouping.h"
#include "report/timebase.h"
#include "report/verdict.h"

namespace nodeleak::report {

Evidence CollectEvidence(const recording::Recording& recording, const Timebase& timebase, const Collectors& collectors,
                         const std::vector<const ClassifiedUse*>& members);

}  // namespace nodeleak::report
