// Outside. Looks at a process before anything is done to it: can a library be loaded into it at all? Every reason that
// is known beforehand is one sentence that says what to do. Nothing is stopped or changed.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nodeleak::tracer {

struct AttachTarget {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  std::string executable;                   // as /proc/PID/exe names it
  uint64_t file_size_limit = ~uint64_t{0};  // RLIMIT_FSIZE
  std::vector<std::string> notes;           // sentences for the person; nothing that forbids it
};

// `verb` is for the sentence: "cannot attach to 4242: ...".
absl::StatusOr<AttachTarget> CheckAttachable(pid_t pid, absl::string_view verb = "attach to");

// Why ptrace or the memory of a process is refused although it exists: whose it is, Yama, capabilities.
std::string ExplainRefusal(pid_t pid);

}  // namespace nodeleak::tracer
