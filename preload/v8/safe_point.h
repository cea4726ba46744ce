// Runs inside node, on an isolate's own thread or, for requests, on the watcher thread. The requests that wait for a
// place where V8 may be called.
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

// The signal of the end picture that was asked for and not taken yet; 0: none.
int PendingEndSignal();

// The picture for a signal has begun and waits for turns of the loop, which will not come any more: finishes it. True:
// it was so. On the main isolate's thread.
bool FinishEndTurns(IsolateRecord* record);

// A new recording.
void ForgetEndRequest();

// Dies of that signal, as it was asked, once the picture is there.
void FinishEndSignal();

// Has the isolate's thread come by in the middle of JavaScript, too. At most one such wish waits in V8. Any thread,
// while the isolate is held.
void InterruptOnce(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
