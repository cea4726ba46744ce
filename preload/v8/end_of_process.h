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

// The picture in two steps, at places where V8 may be called. Between them finalizers may run; what they free is told
// apart. Begin happens once per process: false when it has been done already.
bool BeginEndPicture(IsolateRecord* record);
struct EndTurns {
  uint32_t count = 0;          // chances that finalizers had, 0: this way of ending gave them none
  bool something_ran = false;  // then, or it is not known: another collection finds what that let go
};
void FinishEndPicture(IsolateRecord* record, recording::FreezeReason reason, int signal, EndTurns turns);

// Instead of Finish, on the watcher thread: the turns do not come.
void EndPictureWithoutTurns();

// Both at once, at the poll that IsCleanupPoll has found: node is in the middle of its clean-up and runs what waits
// for a turn of the loop itself, so we may have it do so here.
void TakePictureInCleanup(IsolateRecord* record);

// Is this poll (with timeout 0, on the main isolate's thread) the first step of node's clean-up? Natural ends reach
// node::AtExit only after the clean-up has destroyed every native wrapper; this is the last moment before.
bool IsCleanupPoll();

}  // namespace nodeleak::preload::v8
