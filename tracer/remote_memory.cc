#include "tracer/remote_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

constexpr size_t kPageBytes = 4096;

absl::Status Failed(const char* verb, size_t bytes, RemoteAddress address, pid_t pid) {
  return absl::UnavailableError(absl::StrFormat("cannot %s %d bytes at %#x of process %d: %s", verb, bytes,
                                                ToNumber(address), pid, errno == 0 ? "it is gone" : strerror(errno)));
}

}  // namespace

absl::StatusOr<RemoteMemory> RemoteMemory::Open(pid_t pid) {
  UniqueFd fd(open(ProcPath(pid, "mem").c_str(), O_RDWR | O_CLOEXEC));
  if (fd.valid()) return RemoteMemory(pid, std::move(fd));
  return absl::PermissionDeniedError(absl::StrCat("cannot open the memory of process ", pid, ": ", strerror(errno),
                                                  "; run nodeleak as root or as the user of the process"));
}

bool RemoteMemory::TryRead(RemoteAddress address, void* out, size_t bytes) const {
  errno = 0;
  return pread(fd_.get(), out, bytes, static_cast<off_t>(ToNumber(address))) == static_cast<ssize_t>(bytes);
}

absl::Status RemoteMemory::Read(RemoteAddress address, void* out, size_t bytes) const {
  return TryRead(address, out, bytes) ? absl::OkStatus() : Failed("read", bytes, address, pid_);
}

absl::Status RemoteMemory::Write(RemoteAddress address, const void* data, size_t bytes) const {
  errno = 0;
  const ssize_t written = pwrite(fd_.get(), data, bytes, static_cast<off_t>(ToNumber(address)));
  return written == static_cast<ssize_t>(bytes) ? absl::OkStatus() : Failed("write", bytes, address, pid_);
}

std::string RemoteMemory::ReadString(RemoteAddress address) const {
  constexpr size_t kMostBytes = 4096;
  std::string text;
  while (text.size() < kMostBytes) {
    char chunk[64];
    // Not beyond the page: the next one may not be there.
    const size_t in_page = kPageBytes - ToNumber(address) % kPageBytes;
    const size_t bytes = in_page < sizeof chunk ? in_page : sizeof chunk;
    if (!TryRead(address, chunk, bytes)) break;
    const size_t length = strnlen(chunk, bytes);
    text.append(chunk, length);
    if (length < bytes) break;
    address = address + bytes;
  }
  return text;
}

std::vector<uint64_t> RemoteMemory::ReadWords(RemoteAddress address, size_t count) const {
  std::vector<uint64_t> words(count);
  errno = 0;
  const ssize_t got = pread(fd_.get(), words.data(), count * sizeof(uint64_t), static_cast<off_t>(ToNumber(address)));
  words.resize(got > 0 ? static_cast<size_t>(got) / sizeof(uint64_t) : 0);
  return words;
}

}  // namespace nodeleak::tracer
