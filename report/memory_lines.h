// Outside node. Where the resident memory went, as far as the recording alone tells. The waterfall over smaps goes
// further.
#pragma once

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// At the end of what was recorded; 0: not known.
uint64_t RssOf(const recording::Recording& recording);
Memory DescribeMemory(const recording::Recording& recording, const std::vector<KindTotal>& kinds,
                      uint64_t reserved_bytes);

}  // namespace nodeleak::report
