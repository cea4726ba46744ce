// Outside node. What the full collection at the end freed, stack by stack.
#pragma once

#include <vector>

#include "recording/recording.h"
#include "report/uses.h"

namespace nodeleak::report {

// Fills in Use::garbage_*. The shim takes a checkpoint right before that collection; without one nothing is filled in.
void AddGarbage(const recording::Recording& recording, std::vector<Use>* uses);

// The checkpoint that the shim took right before that collection; nullptr: not found.
const recording::Checkpoint* FindCheckpointBeforeGc(const recording::Recording& recording);

}  // namespace nodeleak::report
