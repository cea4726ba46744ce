// Runs inside node, on the watcher's thread or on the one that freezes, never on both at once. Never allocates through
// a hooked allocator.
//
// What each stack had allocated and freed by when, at up to 64 moments. A checkpoint holds what changed since the one
// before: a server that idles writes next to nothing, however much its start left alive.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
#include "preload/recorder/stack_table.h"
#include "recording/layout.h"

namespace nodeleak::preload {

class Checkpoints {
 public:
  void Attach(RecordingFile* file);
  // Of `moment` the entries are filled in here. When the recording has no room for all of them there is no checkpoint,
  // and the next one has what this one was to have. Returns true when every two older ones were taken together: they
  // are to come half as often from now on.
  bool Add(recording::Checkpoint moment, const StackTable& stacks);

 private:
  bool Thin();
  uint64_t Merge(const recording::CheckpointEntry* going, uint64_t going_count, uint64_t next, uint64_t next_count,
                 uint64_t to);
  void Drop(uint64_t first_entry, const StackTable& stacks);

  AppendTable<recording::Checkpoint> checkpoints_ = {};
  AppendTable<recording::CheckpointEntry> entries_ = {};
};

}  // namespace nodeleak::preload
