// Runs inside node, on the main isolate's thread. Never allocates (V8 does), waits or throws.
//
// The scopes of the program's functions: V8's contexts, which hold the variables that closures share. A program that
// ends by itself has let go of its last callback, and nothing refers to them any more: the full collection at the end
// would free what a script held all along. So they are known by weak handles, which keep nothing alive, and made strong
// for that collection. What V8 had collected before is gone, as it would be without us.
#pragma once

#include <stdint.h>

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

// Once, at start. A process that builds a startup snapshot has no scopes kept: V8 tolerates no handle there.
void PrepareScopes();

// A frame of the program's JavaScript is on the calling thread's stack, with this context. Any thread, in a hook.
void NoteScope(uint64_t context);

// Where V8 may be called: before a collection moves what was noted, and at safe points. One of each scope is kept.
void KeepNotedScopes(IsolateRecord* record);

// Around a collection of an event loop that has turned and has nothing more to do: V8 may do one of its own before the
// program gets to its end. HoldScopesAtEnd before it, with the loop's isolate; LetScopesGo after it, in any case.
void HoldScopesAtEnd(IsolateRecord* record);
void LetScopesGo();

// While one is open the variables in the kept scopes are alive. Where V8 may be called.
class ScopesHold {
 public:
  explicit ScopesHold(IsolateRecord* record);
  ~ScopesHold();
  ScopesHold(const ScopesHold&) = delete;
  ScopesHold& operator=(const ScopesHold&) = delete;
};

}  // namespace nodeleak::preload::v8
