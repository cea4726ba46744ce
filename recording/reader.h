// Outside. Reads recordings, which are untrusted input: a process may be writing this one right now, was killed in the
// middle of an update, or the file is truncated, damaged, of another version, foreign or hostile. Never crashes, uses
// memory and time in proportion to the file, and either says in a sentence why it cannot be read or returns what is
// whole.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "recording/byte_source.h"
#include "recording/recording.h"

namespace nodeleak::recording {

// Reads with pread only: a mapping of a file that someone truncates is a SIGBUS.
absl::StatusOr<Recording> ReadRecording(const std::string& path);

// The same of bytes that nobody changes. Its errors do not name a file.
absl::StatusOr<Recording> ParseRecording(absl::Span<const char> bytes);

// The same of anything. (Tests put a writer between two reads.)
absl::StatusOr<Recording> ReadRecordingFrom(const ByteSource& source);

// Does the file begin as a recording of any version does? False for what is not there or not readable.
bool LooksLikeRecording(const std::string& path);

}  // namespace nodeleak::recording
