#include "recording/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nodeleak::recording {

uint64_t MemorySource::ReadAt(uint64_t offset, void* to, uint64_t bytes) const {
  if (offset >= bytes_.size()) return 0;
  const uint64_t there = std::min<uint64_t>(bytes, bytes_.size() - offset);
  if (there != 0) memcpy(to, bytes_.data() + offset, there);
  return there;
}

absl::StatusOr<FileSource> FileSource::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for someone to write to it.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open it");
  FileSource source(fd);
  struct stat status;
  if (fstat(fd, &status) != 0) return absl::ErrnoToStatus(errno, "cannot see what it is");
  if (S_ISDIR(status.st_mode)) return absl::InvalidArgumentError("it is a directory");
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError("it is not a regular file");
  return source;
}

FileSource::~FileSource() {
  if (fd_ >= 0) close(fd_);
}

uint64_t FileSource::Size() const {
  struct stat status;
  return fstat(fd_, &status) == 0 && status.st_size > 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

uint64_t FileSource::StoredBytes() const {
  constexpr uint64_t kStatBlockBytes = 512;  // stat(2): st_blocks
  struct stat status;
  return fstat(fd_, &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * kStatBlockBytes : 0;
}

uint64_t FileSource::ReadAt(uint64_t offset, void* to, uint64_t bytes) const {
  constexpr uint64_t kMaxOffset = INT64_MAX;
  uint64_t done = 0;
  while (done < bytes && offset <= kMaxOffset - done) {
    const ssize_t got = pread(fd_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<uint64_t>(got);
  }
  return done;
}

}  // namespace nodeleak::recording
