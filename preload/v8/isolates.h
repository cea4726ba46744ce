// Runs inside node, on the threads that own isolates. The isolates that we know, in a fixed array: a record's address
// is the `data` of V8's callbacks, so it must outlive its isolate.
#pragma once

#include <stdint.h>

#include "preload/v8/runtime_symbols.h"
#include "recording/layout.h"

namespace nodeleak::preload::v8 {

inline constexpr uint32_t kMaxIsolates = 1024;  // alive at once

// How far an isolate is with a collection that was asked for: collection.h.
struct CollectionState {
  uint32_t step;    // CollectionStep
  uint32_t answer;  // row of recording::GcAnswer
  uint64_t turning_since_ns;
  recording::GcAnswer progress;
};

// How far the list of array buffers from before is: buffer_lists.h.
struct BufferListTries {
  uint32_t tries;
  bool done;
  uint64_t tried_ns;
};

struct IsolateRecord {
  Isolate* isolate;    // nullptr: free slot
  uint32_t index;      // in the recording; kNoIndex when its table is full
  uint32_t recording;  // RecordingNumber() that the index belongs to
  uint32_t generation;
  uint32_t thread_id;
  uint32_t major_gcs;
  bool is_main;
  bool watches_gc;
  uint32_t gc_depth;         // collections that have begun and not ended
  bool ended;                // its environment has; the slot may not be free yet
  bool has_turned;           // its event loop
  bool interrupt_queued;     // asked of V8, not run yet: JavaScript may be idle for long
  Environment* environment;  // nullptr: not known yet
  EventLoop* loop;           // nullptr: not known, it cannot be woken
  int poll_fd;               // the loop's epoll descriptor
  uint64_t gc_start_ns;
  uint64_t statistics_ns;  // when they were last read
  uint64_t rest_until_ns;  // no reading after scavenges before
  CollectionState collection;
  BufferListTries buffers;
};

// The calling thread's isolate, registered when it is new. nullptr: none, or one whose environment has ended, or the
// thread does not hold it.
IsolateRecord* FindOrRegisterIsolate();

// Only if known already.
IsolateRecord* CurrentIsolateRecord();

// Keeps all isolates alive while another thread talks to them: V8's RequestInterrupt on a disposed isolate would write
// into freed memory.
class IsolatesHold {
 public:
  IsolatesHold();
  ~IsolatesHold();
  IsolatesHold(const IsolatesHold&) = delete;
  IsolatesHold& operator=(const IsolatesHold&) = delete;

  bool held() const { return locked_; }
  IsolateRecord* main() const;  // nullptr: none alive, or not held
  template <typename Visitor>
  void ForEach(Visitor visit) const {
    for (IsolateRecord* record = first_; record != end_; ++record)
      if (record->isolate != nullptr && !__atomic_load_n(&record->ended, __ATOMIC_ACQUIRE)) visit(record);
  }

 private:
  bool locked_;
  IsolateRecord* first_ = nullptr;
  IsolateRecord* end_ = nullptr;
};

// A new recording of the same process: isolates are told to it when they come by again, and count from 0.
void ForgetCollections();

// After Unregister on this thread: is its isolate still there, to be met anew? Then it is no longer left alone.
bool IsBackFromEnd();

// node::AtExit of a record's environment, main or worker. What happens at the end of the main one is end_of_process.cc.
void Unregister(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
