#include "tracer/proc_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {
namespace {

bool ParseHex(absl::string_view text, uint64_t* value) { return absl::SimpleHexAtoi(text, value); }

// "start-end rwxp offset device inode   path"
bool ParseMapping(absl::string_view line, Mapping* mapping) {
  const size_t dash = line.find('-'), space = line.find(' ');
  uint64_t start, end;
  if (dash == absl::string_view::npos || space == absl::string_view::npos || dash > space ||
      !ParseHex(line.substr(0, dash), &start) || !ParseHex(line.substr(dash + 1, space - dash - 1), &end))
    return false;
  mapping->range = {static_cast<RemoteAddress>(start), static_cast<RemoteAddress>(end)};
  line.remove_prefix(space + 1);
  mapping->permissions = std::string(line.substr(0, line.find(' ')));
  const size_t path = line.find_first_of("/[");
  mapping->path = path == absl::string_view::npos ? "" : std::string(line.substr(path));
  return true;
}

std::vector<int> ReadNumberedEntries(const std::string& path) {
  std::vector<int> numbers;
  std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
  if (folder == nullptr) return numbers;
  while (const dirent* entry = readdir(folder.get())) {
    int number;
    if (absl::SimpleAtoi(entry->d_name, &number)) numbers.push_back(number);
  }
  return numbers;
}

uint32_t ParseInnermostId(const std::string& status, absl::string_view field) {
  const std::vector<std::string> ids =
      absl::StrSplit(StatusField(status, field), absl::ByAnyChar("\t "), absl::SkipEmpty());
  return ids.empty() ? 0 : static_cast<uint32_t>(strtoul(ids.back().c_str(), nullptr, 10));
}

}  // namespace

std::string ReadWholeFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[65536];
  for (ssize_t got; fd.valid() && (got = read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  return text;
}

std::string ProcPath(pid_t pid, absl::string_view name) { return absl::StrCat("/proc/", pid, "/", name); }
std::string ReadProcFile(pid_t pid, absl::string_view name) { return ReadWholeFile(ProcPath(pid, name)); }

std::string StatusField(absl::string_view status, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::StartsWith(line, name) || line.size() <= name.size() || line[name.size()] != ':') continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(name.size() + 1)));
  }
  return "";
}

char ReadThreadState(pid_t thread) {
  const std::string stat = ReadProcFile(thread, "stat");  // "id (name) state ...", any character in the name
  const size_t name_end = stat.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= stat.size() ? 'X' : stat[name_end + 2];
}

uint32_t ReadInnermostPid(pid_t pid) { return ParseInnermostId(ReadProcFile(pid, "status"), "NStgid"); }
uint32_t ReadInnermostThreadId(pid_t pid, pid_t thread) {
  return ParseInnermostId(ReadProcFile(pid, absl::StrCat("task/", thread, "/status")), "NSpid");
}

std::vector<pid_t> ReadThreadIds(pid_t pid) { return ReadNumberedEntries(ProcPath(pid, "task")); }
std::vector<int> ReadDescriptors(pid_t pid) { return ReadNumberedEntries(ProcPath(pid, "fd")); }

std::vector<Mapping> ReadMappings(pid_t pid) {
  std::vector<Mapping> mappings;
  const std::string text = ReadProcFile(pid, "maps");
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    Mapping mapping;
    if (ParseMapping(line, &mapping)) mappings.push_back(std::move(mapping));
  }
  return mappings;
}

}  // namespace nodeleak::tracer
