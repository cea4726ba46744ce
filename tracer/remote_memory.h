// Outside. Another process's memory through one descriptor of /proc/PID/mem. The descriptor means the memory that the
// process had when it was opened: after an exec, or when the pid has become somebody else's, reads and writes fail.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tracer/remote_address.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {

class RemoteMemory {
 public:
  static absl::StatusOr<RemoteMemory> Open(pid_t pid);

  pid_t pid() const { return pid_; }

  // False: not all of it is there.
  bool TryRead(RemoteAddress address, void* out, size_t bytes) const;
  absl::Status Read(RemoteAddress address, void* out, size_t bytes) const;
  // Also into pages that the process itself may not write (its text): the kernel makes a private copy of the page.
  absl::Status Write(RemoteAddress address, const void* data, size_t bytes) const;

  template <typename T>
  absl::StatusOr<T> ReadValue(RemoteAddress address) const {
    T value;
    if (absl::Status status = Read(address, &value, sizeof value); !status.ok()) return status;
    return value;
  }
  template <typename T>
  absl::Status WriteValue(RemoteAddress address, const T& value) const {
    return Write(address, &value, sizeof value);
  }
  // Up to its NUL; at most 4096 bytes, fewer where memory ends.
  std::string ReadString(RemoteAddress address) const;
  // As many of the words from `address` on as are there.
  std::vector<uint64_t> ReadWords(RemoteAddress address, size_t count) const;

 private:
  RemoteMemory(pid_t pid, UniqueFd fd) : pid_(pid), fd_(std::move(fd)) {}
  pid_t pid_;
  UniqueFd fd_;
};

}  // namespace nodeleak::tracer
