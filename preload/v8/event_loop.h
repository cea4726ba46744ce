// Runs inside node. The libuv loop of an isolate: which one it is, and how it is woken without the program noticing.
//
// Every uv_loop_t has a handle of its own, wq_async, by which the thread pool tells it of finished work. Sent without
// any finished work it is a turn of the loop in which nothing happens: no handle is added, nothing is kept alive, no
// signal interrupts anything (docs/decisions).
#pragma once

#include "preload/v8/isolates.h"

namespace nodeleak::preload::v8 {

// Fills in `loop` and `poll_fd`, or leaves `loop` at nullptr when libuv is not laid out as we know it. On the isolate's
// thread, in context.
void FindEventLoop(IsolateRecord* record);

// Makes the loop return from its poll and turn once. Any thread, while the isolate is held, or its own. Does nothing
// when the loop is not known.
void WakeEventLoop(const IsolateRecord& record);

}  // namespace nodeleak::preload::v8
