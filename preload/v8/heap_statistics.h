// Runs inside node, on an isolate's own thread, at a safe point. Reads v8::HeapStatistics and the heap spaces into the
// recording, and proves their layout before trusting it.
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

bool HeapStatisticsAddUp();  // the layout has been proved

void ReadHeapStatistics(IsolateRecord* record);

// At most every kStatisticsEveryNs.
void ReadHeapStatisticsIfDue(IsolateRecord* record);

// In V8's callback at the end of a collection, as node's own GCProfiler does: what is used then is alive, but for old
// garbage where only the young were collected. After those at most a five-hundredth of the time.
void ReadHeapAfterCollection(IsolateRecord* record, bool full);

}  // namespace nodeleak::preload::v8
