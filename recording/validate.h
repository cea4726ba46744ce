// Outside. Makes what the tables say true: an index that leads nowhere becomes kNoIndex (or stack 0, or a marker),
// entries that make no sense go, and each kind of change is one sentence in recording->damage, or in recording->notes
// when a process that runs on explains it.
#pragma once

#include "recording/recording.h"

namespace nodeleak::recording {

// In this order: each looks at tables that come before it.
void ValidateFrames(Recording* recording);  // modules, js_functions are there
void ValidateStacks(Recording* recording);  // and frames, stack_nodes, threads
void ValidateBlocks(Recording* recording, bool torn);
void ValidateRanges(Recording* recording, bool torn);
void ValidateThreads(Recording* recording);  // threads, isolates, spaces
void ValidateTimeline(Recording* recording);
void ValidateCheckpoints(Recording* recording);
void ValidateCollections(Recording* recording);  // and stacks, isolates
void ValidateOlderBuffers(Recording* recording);

// Those that are whole and make sense, the latest of each moment, into recording->pictures.
void TakePictures(const std::vector<MemoryPicture>& pictures, const std::vector<MemoryUse>& uses,
                  const std::vector<MemoryArena>& arenas, Recording* recording);

// Adds up; `totals` has the process's own counts already.
void SumTotals(Recording* recording);

}  // namespace nodeleak::recording
