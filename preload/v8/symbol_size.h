// Runs inside node, at start. Never allocates.
//
// dladdr1 would say it, after a look at each of node's 90,000 exported symbols: two megabytes that nobody else reads.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

// st_size of the exported symbol of that name at this address; 0: it is not there, or its module has no DT_GNU_HASH.
uint64_t SymbolSize(const char* name, const void* address);

}  // namespace nodeleak::preload::v8
