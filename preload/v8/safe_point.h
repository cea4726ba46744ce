// Runs inside node, on an isolate's own thread or, for requests, on the watcher thread. The requests that wait for a
// place where V8 may be called.
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

// The signal of the end picture that was asked for and not taken yet; 0: none.
int PendingEndSignal();

// Dies of that signal, as it was asked, once the picture is there.
void FinishEndSignal();

}  // namespace nodeleak::preload::v8
