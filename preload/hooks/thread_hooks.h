// Runs inside node. Threads as they are made: who created them, when they end.
#pragma once

namespace nodeleak::preload {

// Once, before the first thread is to be seen.
void StartThreadHooks();

}  // namespace nodeleak::preload
