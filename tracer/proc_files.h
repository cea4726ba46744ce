// Outside. What /proc says of a process; nothing here touches or stops it. Texts are empty and lists are short when the
// process ends meanwhile.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tracer/remote_address.h"

namespace nodeleak::tracer {

std::string ReadWholeFile(const std::string& path);
std::string ProcPath(pid_t pid, absl::string_view name);  // "/proc/PID/name"
std::string ReadProcFile(pid_t pid, absl::string_view name);

// The value of "Name:\tvalue" in /proc/PID/status; empty: no such line.
std::string StatusField(absl::string_view status, absl::string_view name);

// A process's id, or that of one of its threads, as it knows itself in its own pid namespace; 0: it is gone.
uint32_t ReadInnermostPid(pid_t pid);
uint32_t ReadInnermostThreadId(pid_t pid, pid_t thread);

std::vector<pid_t> ReadThreadIds(pid_t pid);
char ReadThreadState(pid_t thread);           // 'R' runs or waits for a processor, 'S' sleeps...; 'X': it is gone
std::vector<int> ReadDescriptors(pid_t pid);  // the numbers of its open files

struct Mapping {
  RemoteRange range;
  std::string permissions;  // "r-xp"
  std::string path;
};
std::vector<Mapping> ReadMappings(pid_t pid);

}  // namespace nodeleak::tracer
