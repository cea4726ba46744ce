// Outside node. From a memory picture to lines that a person reads: which owner has how much of the resident memory.
#pragma once

#include <vector>

#include "recording/recording.h"
#include "report/grouping.h"
#include "report/model.h"

namespace nodeleak::report {

inline constexpr char kFreeLine[] = "malloc: free, but kept";
inline constexpr char kUnexplainedLine[] = "unexplained";

// The stored pictures into report->memory (the end, or the latest one) and report->other_memory.
void AddPictures(const recording::Recording& recording, const std::vector<ClassifiedUse>& uses, Report* report);

Memory DescribePicture(const recording::Recording& recording, const recording::PictureInfo& picture,
                       const std::vector<ClassifiedUse>& uses);

// What would help, in memory->advice. `arenas` of the same picture.
void Advise(const std::vector<recording::MemoryArena>& arenas, bool is_libc, Memory* memory);

}  // namespace nodeleak::report
