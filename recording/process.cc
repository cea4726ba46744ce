#include "recording/process.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nodeleak::recording {

namespace {

// The fields behind the name: field 2, which may itself hold blanks and parentheses. Empty: no such process.
std::vector<std::string> FieldsFromThird(uint32_t pid) {
  const int fd = open(absl::StrCat("/proc/", pid, "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char text[1024];
  const ssize_t bytes = read(fd, text, sizeof(text));
  close(fd);
  if (bytes <= 0) return {};
  const absl::string_view stat(text, static_cast<size_t>(bytes));
  const size_t after_name = stat.rfind(") ");
  if (after_name == absl::string_view::npos) return {};
  return absl::StrSplit(stat.substr(after_name + 2), ' ');
}
constexpr size_t kState = 3 - 3, kStartTime = 22 - 3;  // proc(5) counts from 1; ours begin with field 3

}  // namespace

absl::optional<uint64_t> ProcessStartTicks(uint32_t pid) {
  const std::vector<std::string> fields = FieldsFromThird(pid);
  uint64_t ticks = 0;
  if (fields.size() <= kStartTime || !absl::SimpleAtoi(fields[kStartTime], &ticks)) return absl::nullopt;
  if (fields[kState] == "Z" || fields[kState] == "X") return absl::nullopt;
  return ticks;
}

char ProcessStateLetter(uint32_t pid) {
  const std::vector<std::string> fields = FieldsFromThird(pid);
  return fields.empty() || fields[kState].empty() ? '\0' : fields[kState][0];
}

std::string RootOfProcess(uint32_t pid, uint64_t process_start_ticks) {
  const std::string root = absl::StrCat("/proc/", pid, "/root");
  struct stat theirs, ours;
  if (stat(absl::StrCat(root, "/").c_str(), &theirs) != 0 || stat("/", &ours) != 0) return "";
  const bool same = theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
  return same || !IsProcessRunning(pid, process_start_ticks) ? "" : root;
}

bool IsProcessRunning(uint32_t pid, uint64_t process_start_ticks) {
  if (pid == 0) return false;
  const absl::optional<uint64_t> ticks = ProcessStartTicks(pid);
  return ticks.has_value() && *ticks == process_start_ticks;
}

}  // namespace nodeleak::recording
