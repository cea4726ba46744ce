// Runs inside node, on the threads that own isolates. The isolates that we know, in a fixed array: a record's address
// is the `data` of V8's callbacks, so it must outlive its isolate.
#pragma once

#include <stdint.h>

#include "preload/v8/runtime_symbols.h"

namespace nodeleak::preload::v8 {

inline constexpr uint32_t kMaxIsolates = 1024;  // alive at once

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
  Environment* environment;  // nullptr: not known yet
  uint64_t gc_start_ns;
  uint64_t statistics_ns;      // when they were last read
  uint32_t gcs_at_statistics;  // major_gcs when they were last read
};

// The calling thread's isolate, registered when it is new. nullptr: none, or one whose environment has ended, or the
// thread does not hold it.
IsolateRecord* FindOrRegisterIsolate();

// Only if known already.
IsolateRecord* CurrentIsolateRecord();

// Keeps the main isolate alive while another thread talks to it: V8's RequestInterrupt on a disposed isolate would
// write into freed memory.
class MainIsolateHold {
 public:
  MainIsolateHold();
  ~MainIsolateHold();
  MainIsolateHold(const MainIsolateHold&) = delete;
  MainIsolateHold& operator=(const MainIsolateHold&) = delete;
  IsolateRecord* record() const { return record_; }  // nullptr: none alive

 private:
  bool locked_;
  IsolateRecord* record_ = nullptr;
};

// A new recording of the same process: isolates are told to it when they come by again, and count from 0.
void ForgetCollections();

// node::AtExit of a record's environment, main or worker. What happens at the end of the main one is end_of_process.cc.
void Unregister(IsolateRecord* record);

}  // namespace nodeleak::preload::v8
