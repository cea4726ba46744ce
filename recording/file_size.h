// How large a recording may be at least, and at most where the program's own limit for files (RLIMIT_FSIZE) says so.
// Freestanding like layout.h.
#pragma once

#include <stdint.h>

namespace nodeleak::recording {

inline constexpr uint64_t kLeastRecordingBytes = 1 << 20;  // with less there would be hardly more than empty tables

// In Header::flags, counted from the other end than HeaderFlag: RLIMIT_FSIZE leaves less room than --max-recording.
inline constexpr uint32_t kFileSizeLimited = 1u << 31;

}  // namespace nodeleak::recording
