#include "recording/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <memory>
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
constexpr size_t kState = 3 - 3, kThreads = 20 - 3, kStartTime = 22 - 3;  // proc(5) counts from 1; ours from field 3

bool HasEnded(const std::vector<std::string>& fields) {
  int threads = 0;
  const bool only_one = !absl::SimpleAtoi(fields[kThreads], &threads) || threads <= 1;
  return fields[kState] == "X" || (fields[kState] == "Z" && only_one);
}

bool ShowsMemory(const std::string& folder) {
  std::ifstream maps(absl::StrCat(folder, "/maps"));
  return maps.peek() != std::ifstream::traits_type::eof();
}

}  // namespace

absl::optional<uint64_t> ProcessStartTicks(uint32_t pid) {
  const std::vector<std::string> fields = FieldsFromThird(pid);
  uint64_t ticks = 0;
  if (fields.size() <= kStartTime || !absl::SimpleAtoi(fields[kStartTime], &ticks)) return absl::nullopt;
  if (HasEnded(fields)) return absl::nullopt;
  return ticks;
}

char ProcessStateLetter(uint32_t pid) {
  const std::vector<std::string> fields = FieldsFromThird(pid);
  return fields.empty() || fields[kState].empty() ? '\0' : fields[kState][0];
}

std::string FolderWithMemory(uint32_t pid) {
  const std::string tasks = absl::StrCat("/proc/", pid, "/task/");
  std::string main = absl::StrCat(tasks, pid);
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(tasks.c_str()), closedir);
  if (folder == nullptr || ShowsMemory(main)) return main;
  while (const dirent* entry = readdir(folder.get())) {
    std::string thread = absl::StrCat(tasks, entry->d_name);
    if (entry->d_name[0] != '.' && ShowsMemory(thread)) return thread;
  }
  return main;
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
