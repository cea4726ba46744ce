// Outside. Millions of blocks by address, each address once.
#pragma once

#include <cstdint>
#include <vector>

#include "recording/layout.h"

namespace nodeleak::recording {

// Sorts by address and keeps the first of those with the same address. Returns how many went.
uint64_t SortAndDropDoubles(std::vector<Block>* blocks);

}  // namespace nodeleak::recording
