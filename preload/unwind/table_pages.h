// Runs inside node; NoteTableUse on any thread inside malloc, ReleaseTablePages on the watcher's.
//
// Looking up unwind rules touches pages of node's .eh_frame and of its index all over, and the kernel maps 16 at each
// fault: 5 to 6 MiB of resident memory that the program would not have without us. They are clean pages of a file, so
// they can be let go; one that is needed again comes from the page cache.
#pragma once

#include <stdint.h>

#include "preload/unwind/modules.h"

namespace nodeleak::preload {

// An entry of .eh_frame at [start, end) was read. Counts for the first module of some size only, which is node.
void NoteTableUse(const ModuleInfo& module, uint64_t start, uint64_t end);

// Lets go of what was touched: after some look-ups, or when none came since the last call. Never where a page is not
// the file's any more.
void ReleaseTablePages();

}  // namespace nodeleak::preload
