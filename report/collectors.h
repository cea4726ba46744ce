// Outside node. Which garbage collector decides about the memory of a stack, and when it last looked: blocks that it
// has not looked at since they were born may be garbage.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/grouping.h"

namespace nodeleak::report {

// Marking takes its time while the program runs, and what is born meanwhile survives that GC, garbage or not: only the
// second GC that a block meets has looked at it.
struct Collector {
  uint32_t full_gcs = 0;
  double looked_until_seconds = 0;  // the last GC but one: what is older has been looked at; 0: there is none
  bool gone = false;                // the isolate's thread ended before the picture: it holds on to nothing any more
  bool collected_at_end = false;    // forced, in the midst of its work: no turn of its loop followed
  const char* doubt = "";           // why a later GC does not count; a sentence

  bool HasSeen(const Birth& birth) const { return gone || birth.gc + 2 <= full_gcs; }
};

class Collectors {
 public:
  Collectors(const recording::Recording& recording, const std::vector<ClassifiedUse>& uses);

  // Nothing in a program without V8. Of most memory the isolate of the thread that allocated it. Two kinds of memory
  // need more to be called kept:
  // - what an addon keeps with a finalizer goes on a turn of the event loop after the GC, and few ends leave such a
  //   turn: the GC at the end counts where next to no finalizer waits after it;
  // - array buffers may have gone to another thread by postMessage: each isolate must have looked.
  std::optional<Collector> Of(const ClassifiedUse& use) const;

 private:
  void ReadIsolates();
  void ReadLastBeforeTheEnd();
  void FindFinalizers(const std::vector<ClassifiedUse>& uses);
  void CountWaiting(const std::vector<ClassifiedUse>& uses);
  void CountMessages(const std::vector<ClassifiedUse>& uses);
  bool WaitsForATurn(const ClassifiedUse& use) const;
  bool MostFinalizersHaveRun(uint64_t node_api_blocks) const;
  bool MayHaveBeenPosted(const ClassifiedUse& use) const;
  uint32_t ThreadOf(const ClassifiedUse& use) const { return recording_.stacks[use.use->stack].thread; }

  const recording::Recording& recording_;
  std::optional<Collector> main_;
  std::optional<Collector> main_before_end_;  // as it was before the forced GC; unset: there was none
  std::map<uint32_t, Collector> by_thread_;   // of isolates
  // Where Node-API objects are outstanding that an addon made, and in how many blocks.
  std::map<std::string, uint64_t> sites_with_finalizers_;
  uint64_t waiting_ = 0;         // finalizers that the GC at the end has queued, at most
  uint64_t message_blocks_ = 0;  // allocated for messages between threads
};

}  // namespace nodeleak::report
