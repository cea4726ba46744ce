// Outside. Is the process of a recording still there?
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/optional.h"

namespace nodeleak::recording {

// Field 22 of /proc/PID/stat: when the process began, in clock ticks since boot. Nothing: no such process, or it is a
// zombie, which a main thread that left by pthread_exit before the others is not.
absl::optional<uint64_t> ProcessStartTicks(uint32_t pid);

// Field 3: 'R', 'S', 'T' (stopped), 't' (stopped by a debugger)... 0: no such process.
char ProcessStateLetter(uint32_t pid);

// "/proc/PID/task/TID" of a thread under whose number the kernel shows the memory of the process: the main thread's,
// or, where that has left by pthread_exit, another one's.
std::string FolderWithMemory(uint32_t pid);

// "/proc/PID/root" while it runs in another mount namespace, or below another root, than we do: its paths start there.
// Otherwise "".
std::string RootOfProcess(uint32_t pid, uint64_t process_start_ticks);

// Is the same process, not a later one with the same pid, still running?
bool IsProcessRunning(uint32_t pid, uint64_t process_start_ticks);

}  // namespace nodeleak::recording
