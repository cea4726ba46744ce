// Outside node. Does the JavaScript heap itself grow? Judged on what full GCs left of it: what is used between them is
// mostly garbage.
#pragma once

#include "recording/recording.h"
#include "report/model.h"

namespace nodeleak::report {

// kind is kV8Heap; advice is empty.
KindVerdict JudgeJsHeap(const recording::Recording& recording);

}  // namespace nodeleak::report
