// Runs inside node, on an isolate's own thread. The picture of the end: a full collection, then the recording is
// frozen, before node frees everything it has.
#pragma once

#include <stdint.h>

#include "preload/v8/isolates.h"
#include "recording/layout.h"

namespace nodeleak::preload::v8 {

void PrepareEndOfProcess(bool gc_at_end);

// node::AtExit callback of every environment; `data` is its IsolateRecord.
void OnEnvironmentExit(void* data);

// At a place where V8 may be called. Once per process; later calls do nothing. True when this call took it.
bool TakeEndPicture(IsolateRecord* record, recording::FreezeReason reason, int signal);

// Is this poll (with timeout 0, on the main isolate's thread) the first step of node's clean-up? Natural ends reach
// node::AtExit only after the clean-up has destroyed every native wrapper; this is the last moment before.
bool IsCleanupPoll();

}  // namespace nodeleak::preload::v8
