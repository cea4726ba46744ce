// Runs inside node, on any thread, also in a signal handler. Spurious returns are the caller's to see.
#pragma once

#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

// Who looks at the word: this process alone, or also whoever has mapped the recording.
enum class FutexScope : uint8_t { kProcess, kShared };

inline void FutexWait(uint32_t* word, uint32_t expected, uint32_t ms, FutexScope scope = FutexScope::kProcess) {
  timespec timeout = {ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
  RawSyscall(SYS_futex, reinterpret_cast<long>(word), scope == FutexScope::kProcess ? FUTEX_WAIT_PRIVATE : FUTEX_WAIT,
             expected, reinterpret_cast<long>(&timeout));
}

inline void FutexWake(uint32_t* word, FutexScope scope = FutexScope::kProcess) {
  RawSyscall(SYS_futex, reinterpret_cast<long>(word), scope == FutexScope::kProcess ? FUTEX_WAKE_PRIVATE : FUTEX_WAKE,
             INT32_MAX);
}

}  // namespace nodeleak::preload
