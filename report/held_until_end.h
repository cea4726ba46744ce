// Outside node. At a natural end nothing refers to a script's variables any more: what they held is garbage by then.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/timebase.h"
#include "report/uses.h"

namespace nodeleak::report {

// What says that it was held until then; empty: nothing does. `uses` are those of one group, all of them garbage.
std::string HeldUntilEndSentence(const recording::Recording& recording, const Timebase& timebase,
                                 const std::vector<const Use*>& uses);

}  // namespace nodeleak::report
