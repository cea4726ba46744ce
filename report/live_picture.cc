#include "report/live_picture.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "memory/limits.h"
#include "memory/picture.h"
#include "recording/process.h"
#include "recording/texts.h"
#include "report/absl_view.h"

namespace nodeleak::report {
namespace {

using memory::Owner;
using recording::PictureInfo;
using recording::PictureMoment;
using recording::Recording;

constexpr uint32_t kNoAccess = 0;  // PROT_NONE

long Call(long number, long a, long b, long c, long d, long e, long f) {
  const long result = syscall(number, a, b, c, d, e, f);
  return result < 0 ? -errno : result;
}

void* Map(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

void Unmap(void* address, size_t bytes) { munmap(address, bytes); }

void AddClaims(const Recording& recording, memory::PictureTaker* taker) {
  for (const recording::OwnMapping& own : recording.own_mappings) {
    if (own.bytes != 0 && own.start + own.bytes > own.start)
      taker->AddClaim({own.start, own.start + own.bytes, Owner::kNodeleak, 0});
  }
  for (const recording::Range& range : recording.ranges) {
    if ((range.flags & (recording::kRangeBrk | recording::kRangeFile)) != 0) continue;
    const Owner owner = (range.flags & recording::kRangeThreadStack) != 0 ? Owner::kThreadStack
                        : range.protection == kNoAccess                   ? Owner::kReserved
                                                                          : Owner::kMapping;
    taker->AddClaim({range.start, range.end, owner, range.stack});
  }
  for (const recording::ThreadInfo& thread : recording.threads) {
    if (thread.role != recording::ThreadRole::kMain)
      taker->AddClaim({thread.stack_start, thread.stack_end, Owner::kThreadStack, 0});
  }
}

void TakeOver(const memory::PictureTaker& taker, PictureInfo* info) {
  info->picture = taker.picture();
  info->picture.moment = static_cast<uint32_t>(PictureMoment::kNow);
  for (const recording::MemoryUse& use : taker.uses()) {
    if (!memory::PictureTaker::IsEmpty(use)) info->uses.push_back(use);
  }
  info->arenas.assign(taker.arenas().begin(), taker.arenas().end());
}

}  // namespace

absl::StatusOr<PictureInfo> TakePictureNow(uint32_t pid, const Recording& recording) {
  const std::string folder = recording::FolderWithMemory(pid);
  const long thread = strtol(folder.c_str() + folder.rfind('/') + 1, nullptr, 10);
  const memory::System system = {Call, Map, Unmap, folder.c_str(), thread};
  const memory::System own = {Call, Map, Unmap, "/proc/self", 0};
  memory::PictureTaker taker(system, static_cast<uint32_t>(recording.stacks.size()));
  if ((recording.process.flags & recording::kOtherAllocator) != 0) taker.SetOtherAllocator();
  AddClaims(recording, &taker);
  errno = 0;
  if (!taker.ReadKernel()) {
    const bool gone = access(folder.c_str(), F_OK) != 0;
    return absl::FailedPreconditionError(gone ? absl::StrCat("there is no process ", pid)
                                              : absl::StrCat("cannot read /proc/", pid,
                                                             "/smaps: ", strerror(errno != 0 ? errno : ESRCH),
                                                             " (is it another user's process?)"));
  }
  for (const recording::Block& block : recording.blocks)
    taker.AddBlock({block.address, recording::BlockSize(block), block.stack});
  taker.Finish(/*walk=*/true);
  PictureInfo info;
  TakeOver(taker, &info);
  info.picture.time_ns = recording.process.duration_ns;
  if ((recording.process.flags & recording::kIsAttached) == 0) info.picture.flags |= recording::kPictureRecordedAll;
  const memory::MemoryLimit limit = memory::ReadMemoryLimit(system, own);
  info.picture.limit_bytes = limit.bytes;
  info.picture.limit_used_bytes = limit.used_bytes;
  if (limit.throttles) info.picture.flags |= recording::kPictureLimitThrottles;
  return info;
}

absl::StatusOr<Recording> PictureUnrecorded(uint32_t pid) {
  Recording recording;
  recording.stacks.resize(1);
  recording.process.pid = pid;
  recording.process.flags = recording::kIsAttached;  // everything is from before
  recording.process.ending = recording::Ending::kRunning;
  std::stringstream command;
  command << std::ifstream(absl::StrCat("/proc/", pid, "/cmdline")).rdbuf();
  for (const absl::string_view argument : absl::StrSplit(command.str(), '\0', absl::SkipEmpty())) {
    recording.texts.push_back(recording::CleanText(argument, /*keep_lines=*/false));
    recording.process.command.push_back(recording.texts.back());
  }
  absl::StatusOr<PictureInfo> picture = TakePictureNow(pid, recording);
  if (!picture.ok()) return picture.status();
  picture->unrecorded = true;
  recording.pictures.push_back(*std::move(picture));
  return recording;
}

}  // namespace nodeleak::report
