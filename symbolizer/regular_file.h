// Outside node. Opens files named by a recording: a name that may by now be a FIFO, a device or a directory.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace nodeleak::symbolizer {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd();
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Opens `path` for reading if it is a regular file; never waits, never has a side effect on a device. With a `root`
// ("/proc/PID/root") symbolic links, absolute ones too, stay inside of it.
absl::StatusOr<UniqueFd> OpenRegularFile(const std::string& path, const std::string& root);

// The whole file, or an error when it is longer than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, const std::string& root, size_t max_bytes);

}  // namespace nodeleak::symbolizer
