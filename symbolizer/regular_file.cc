#include "symbolizer/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nodeleak::symbolizer {
namespace {

absl::Status OpenError(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(absl::StrCat("file is gone: ", path));
  return absl::UnavailableError(absl::StrCat("cannot open ", path, ": ", strerror(error)));
}

// O_PATH: names the file without opening it, so that a FIFO does not wait and a device notices nothing.
UniqueFd FindFile(const std::string& path, const std::string& root) {
  if (root.empty()) return UniqueFd(open(path.c_str(), O_PATH | O_CLOEXEC));
  UniqueFd root_fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.valid()) return root_fd;
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  UniqueFd found(static_cast<int>(syscall(SYS_openat2, root_fd.get(), path.c_str(), &how, sizeof(how))));
  // Before Linux 5.6, or under a seccomp filter that does not know the call: paths of /proc/PID/maps are already
  // resolved, so only a link made since could lead outside, and build ids catch that.
  if (!found.valid() && (errno == ENOSYS || errno == EPERM)) {
    return UniqueFd(open(absl::StrCat(root, "/", path).c_str(), O_PATH | O_CLOEXEC));
  }
  return found;
}

}  // namespace

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

absl::StatusOr<UniqueFd> OpenRegularFile(const std::string& path, const std::string& root) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("module has no file name");
  }
  UniqueFd found = FindFile(path, root);
  if (!found.valid()) return OpenError(path, errno);
  struct stat info = {};
  if (fstat(found.get(), &info) != 0) return OpenError(path, errno);
  if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat("not a regular file: ", path));
  UniqueFd file(
      open(absl::StrCat("/proc/self/fd/", found.get()).c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.valid()) return OpenError(path, errno);
  return file;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, const std::string& root, size_t max_bytes) {
  absl::StatusOr<UniqueFd> file = OpenRegularFile(path, root);
  if (!file.ok()) return file.status();
  std::string text(max_bytes + 1, '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    ssize_t got = read(file->get(), text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::UnavailableError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  if (filled > max_bytes) return absl::OutOfRangeError(absl::StrCat(path, " is longer than ", max_bytes, " bytes"));
  text.resize(filled);
  return text;
}

}  // namespace nodeleak::symbolizer
