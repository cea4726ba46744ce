// Runs inside node. Full collections that somebody outside asked for, of every isolate: collect, let the event loop
// turn (finalizers run there), collect again.
//
// The watcher asks; each isolate's own thread serves at its next poll or, when JavaScript never yields, in an
// interrupt. What cannot be reached in time is answered as such. Whoever ends an isolate's part, its thread or the
// watcher, takes it by compare-and-swap of `step` and writes the answer.
//
// At the end of the process the main isolate's thread asks in the same way, of all others, once and without turns.
#pragma once

#include <stdint.h>

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

enum class CollectionStep : uint32_t {
  kNothing = 0,
  kAsked,
  kCollecting,  // on the isolate's thread
  kTurning,     // collected once, waits for its loop to turn
  kCollectingAgain,
};

// On the isolate's thread, where V8 may be called. `place` says what may be expected of it.
enum class Place : uint8_t {
  kOwnLoop,       // the isolate's event loop is about to poll
  kOwnLoopAgain,  // the same, and the loop has not turned since the last poll, which a signal interrupted
  kNestedLoop,    // another loop polls: spawnSync
  kInterrupt,     // in the middle of JavaScript
};
void ServeCollection(IsolateRecord* record, Place place);

// The isolate ends. On its thread.
void CollectionGone(IsolateRecord* record);

// Before the picture of the end, on the main isolate's thread with no Guard open: workers that still run collect, each
// on its own thread, so that what they keep can be told from their garbage. Waits until they have, at most half a
// second for those that do not begin (native code) and three seconds for those that have begun.
void CollectWorkersAtEnd();

// One full collection, now, on the isolate's thread with no Guard open; its length.
uint64_t CollectNow(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
