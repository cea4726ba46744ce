// Outside node. What a full collection that we forced has freed, stack by stack: recording::FreedByGc.
#pragma once

#include <vector>

#include "recording/recording.h"
#include "report/uses.h"

namespace nodeleak::report {

// Fills in Use::garbage_* and Use::pending_*.
void AddFreed(const recording::Recording& recording, std::vector<Use>* uses);

// The checkpoint that the shim took right before that collection; nullptr: not found.
const recording::Checkpoint* FindCheckpointBeforeGc(const recording::Recording& recording);

}  // namespace nodeleak::report
