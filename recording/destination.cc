#include "recording/destination.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "recording/byte_source.h"
#include "recording/layout.h"

namespace nodeleak::recording {

absl::Status CheckReplaceable(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", path));
  }
  if (S_ISLNK(status.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is a symbolic link"));
  if (S_ISDIR(status.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is a directory"));
  absl::StatusOr<FileSource> there = FileSource::Open(path);
  uint64_t magic = 0;
  if (!there.ok() || !there->ReadValue(0, &magic) || magic != kMagic) {
    return absl::AlreadyExistsError(absl::StrCat(path, " is there already and is not a recording"));
  }
  return absl::OkStatus();
}

}  // namespace nodeleak::recording
