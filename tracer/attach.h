// Outside. Attaches to a running process: loads the shim, has it record, hooks the allocator; and takes all that back.
// docs/attach.md says step by step what is done to the process. At every moment this process may be killed: the other
// one goes on, and the next Attach or Detach cleans up.
//
// One thread of ours does everything here: ptrace wants that.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tracer/attach_preflight.h"

namespace nodeleak::tracer {

struct AttachOptions {
  std::string shim;       // absolute path of libnodeleak-preload.so
  std::string recording;  // absolute path of the file to create
  uint64_t max_recording_bytes = 1ull << 30;
  uint64_t sample_bytes = 0;
  bool trust_seccomp = false;  // a filter that cannot be read does not end the process
};

class AttachSession {
 public:
  // The process is recorded when this returns.
  static absl::StatusOr<AttachSession> Attach(const AttachTarget& target, const AttachOptions& options);

  AttachSession(AttachSession&&) noexcept;
  AttachSession& operator=(AttachSession&&) noexcept;
  ~AttachSession();

  // Between Attach and Detach, a few times a second.
  struct Progress {
    bool running = false;  // false: the process has ended, become another program, or stopped recording by itself
    uint64_t live_bytes = 0, live_blocks = 0;
  };
  Progress Look();

  // With `collect`, a full collection at the end of the recording, where node's event loop can be reached. Hooks out,
  // recording closed, shim inert.
  absl::Status Detach(bool collect);
  // The process goes on being recorded without us.
  absl::Status Keep();

  const std::vector<std::string>& notes() const;
  // How long all of the process stood still, each time: hooks in, hooks out.
  const std::vector<std::chrono::microseconds>& pauses() const;

 private:
  class Impl;
  explicit AttachSession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What an attach that was kept, or whose nodeleak was killed, left in a process.
struct DetachResult {
  bool found = false;     // there was something to take back
  std::string recording;  // of the kept one; may be empty
  std::vector<std::string> notes;
  std::vector<std::chrono::microseconds> pauses;  // of the process: how long all its threads stood still, each time
};
absl::StatusOr<DetachResult> Detach(const AttachTarget& target, bool collect);

// The recording of a process that is being recorded already (started under nodeleak, or kept); empty: none.
absl::StatusOr<std::string> FindRecordingOf(const AttachTarget& target);

}  // namespace nodeleak::tracer
