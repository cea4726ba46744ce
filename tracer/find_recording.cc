#include "tracer/find_recording.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "recording/byte_source.h"
#include "recording/process.h"
#include "recording/raw_reader.h"

namespace nodeleak::tracer {
namespace {

bool IsRecordingOf(const std::string& path, uint32_t pid) {
  absl::StatusOr<recording::FileSource> source = recording::FileSource::Open(path);
  if (!source.ok()) return false;
  absl::StatusOr<recording::Header> header = recording::ReadHeader(*source);
  return header.ok() && recording::IsProcessRunning(pid, header->process_start_ticks);
}

// "7f12...-7f13... rw-s 00000000 fe:00 247134    /path"
std::string SharedFileOf(const std::string& line) {
  const size_t path = line.find('/');
  return path != std::string::npos && line.find(" rw-s ") < path ? line.substr(path) : "";
}

}  // namespace

std::optional<uint32_t> AsPid(const std::string& operand) {
  uint32_t pid = 0;
  if (!absl::SimpleAtoi(operand, &pid) || access(operand.c_str(), F_OK) == 0) return std::nullopt;
  return pid;
}

std::optional<std::vector<std::string>> SharedFilesOf(uint32_t pid) {
  std::ifstream maps(absl::StrCat(recording::FolderWithMemory(pid), "/maps"));
  if (!maps) return std::nullopt;
  std::vector<std::string> files;
  for (std::string line; std::getline(maps, line);) {
    std::string path = SharedFileOf(line);
    if (!path.empty() && std::find(files.begin(), files.end(), path) == files.end()) files.push_back(std::move(path));
  }
  return files;
}

absl::StatusOr<std::string> FindRecordingOfProcess(uint32_t pid) {
  const std::optional<std::vector<std::string>> files = SharedFilesOf(pid);
  if (!files.has_value())
    return absl::NotFoundError(absl::StrCat("there is no process ", pid, ", or it is another user's"));
  for (const std::string& path : *files) {
    for (const std::string& from_here : {absl::StrCat("/proc/", pid, "/root", path), path}) {
      if (IsRecordingOf(from_here, pid)) return from_here;
    }
  }
  return absl::NotFoundError(absl::StrCat("process ", pid, " writes no recording"));
}

}  // namespace nodeleak::tracer
