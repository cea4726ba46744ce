// Runs inside node, on an isolate's own thread, at a safe point, never inside a collection. Reads memory only.
//
// V8's own list of the array buffers of an isolate (v8::internal::ArrayBufferSweeper), for those that were there before
// the attach. No symbol leads to it, so it is searched for in the Isolate, and believed only if its entries add up to
// the bytes that V8 has counted for it, each time it is read.
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

// A few times until it was read as a whole, or is too long to be read beside the program's work.
void ReadBufferListIfDue(IsolateRecord* record);

// After a full collection, which V8 ends by sweeping to the end: what is in the list now is alive. Takes more time.
void ReadBufferListAfterGc(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
