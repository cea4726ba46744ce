// Outside node. Node's own counters against what was measured: does V8 know what its objects keep alive?
#pragma once

#include <optional>
#include <vector>

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// Nothing when V8's statistics were never read.
std::optional<ExternalMemory> CheckExternalMemory(const recording::Recording& recording,
                                                  const std::vector<Group>& groups, const Memory& memory);

}  // namespace nodeleak::report
