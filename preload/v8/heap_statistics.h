// Runs inside node, on an isolate's own thread, at a safe point. Reads v8::HeapStatistics and the heap spaces into the
// recording, and proves their layout before trusting it.
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

bool HeapStatisticsAddUp();  // the layout has been proved

void ReadHeapStatistics(IsolateRecord* record);

// At most every kStatisticsEveryNs.
void ReadHeapStatisticsIfDue(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
