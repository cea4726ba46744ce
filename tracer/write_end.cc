#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <optional>

#include "recording/layout.h"
#include "tracer/launch.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {
namespace {

using recording::Header;

template <typename T>
bool WriteField(int fd, size_t offset, T value) {
  return pwrite(fd, &value, sizeof value, static_cast<off_t>(offset)) == static_cast<ssize_t>(sizeof value);
}

uint64_t MonotonicNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// The path comes from the target: it may name anything. Not through a link, no FIFO that would block, only a recording.
std::optional<Header> OpenRecording(const std::string& path, int access, UniqueFd* fd) {
  *fd = UniqueFd(open(path.c_str(), access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status;
  if (!fd->valid() || fstat(fd->get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  Header header;
  if (pread(fd->get(), &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header)) return std::nullopt;
  bool known = header.magic == recording::kMagic && header.version == recording::kFormatVersion &&
               header.header_bytes == sizeof header;
  return known ? std::optional<Header>(header) : std::nullopt;
}

}  // namespace

bool IsOfAnotherProcess(const std::string& recording, pid_t pid) {
  UniqueFd fd;
  std::optional<Header> header = OpenRecording(recording, O_RDONLY, &fd);
  return header.has_value() && header->pid != static_cast<uint32_t>(pid);
}

bool WriteEnd(const std::string& recording, pid_t pid, int exit_code, int end_signal) {
  UniqueFd fd;
  std::optional<Header> header = OpenRecording(recording, O_RDWR, &fd);
  if (!header.has_value() || header->pid != static_cast<uint32_t>(pid)) return false;
  // The process became another program: its end is not the end of what this file recorded.
  if (header->freeze_reason == static_cast<uint32_t>(recording::FreezeReason::kExec)) return false;
  uint64_t ended_ns = MonotonicNanoseconds() - header->start_monotonic_ns;
  return WriteField(fd.get(), offsetof(Header, exit_code), static_cast<int32_t>(exit_code)) &&
         WriteField(fd.get(), offsetof(Header, end_signal), static_cast<int32_t>(end_signal)) &&
         WriteField(fd.get(), offsetof(Header, ended_ns), ended_ns) &&
         WriteField(fd.get(), offsetof(Header, state), static_cast<uint32_t>(recording::ProcessState::kEnded));
}

}  // namespace nodeleak::tracer
