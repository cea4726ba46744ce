// Runs inside node. A signal that would kill node silently (SIGTERM, SIGINT, SIGHUP with default disposition, or with
// node's own handler that only repairs the terminal first) is delayed until the picture is taken; then the process dies
// of it all the same. Handlers of the program's own are never touched, and the program reads back the dispositions
// that it set.
#pragma once

#include <stdint.h>

namespace nodeleak::preload {

// From now on such dispositions are replaced, if this process has V8. Once, after v8::StartRuntime.
void StartSignalHooks();

// The watcher thread's sleep: returns after `timeout_ms`, or sooner when the bell no longer reads `bell`. Has dealt
// with a signal by then (and the process is about to die). The watcher has every signal blocked.
void WatcherWait(uint32_t bell, uint32_t timeout_ms);

// Gives a forked child the dispositions that it believes it has.
void RestoreSignalsInForkedChild();

}  // namespace nodeleak::preload
