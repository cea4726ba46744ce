#include "tracer/jump_page.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tracer/remote_call.h"
#include "tracer/test_point.h"

namespace nodeleak::tracer {
namespace {

using recording::AttachControl;
using std::chrono::milliseconds;

constexpr milliseconds kPatience(5000), kLimit(2000);
constexpr uint64_t kReach = (uint64_t{1} << 31) - (1 << 16);
constexpr uint64_t kLowestAddress = 1 << 20;  // vm.mmap_min_addr and more
constexpr uint64_t kRoomToGrow = 64 << 20;    // left to a heap, or to a stack
constexpr size_t kMostAttempts = 8;           // another thread of it may be quicker

bool IsWithinReach(uint64_t page, const RemoteRange& library) {
  const uint64_t low = std::min(page, ToNumber(library.start));
  const uint64_t high = std::max(page + JumpPage::kBytes, ToNumber(library.end));
  return high - low < kReach;
}

uint64_t Distance(uint64_t page, const RemoteRange& library) {
  return page < ToNumber(library.start) ? ToNumber(library.start) - page : page - ToNumber(library.start);
}

}  // namespace

std::vector<uint64_t> FindFreePages(const std::vector<Mapping>& mappings, const RemoteRange& library) {
  std::vector<uint64_t> pages;
  uint64_t gap_start = kLowestAddress;
  bool behind_heap = false;
  for (const Mapping& mapping : mappings) {
    const uint64_t gap_end = ToNumber(mapping.range.start);
    const bool below_stack = mapping.path == "[stack]";
    const uint64_t needed = below_stack || behind_heap ? kRoomToGrow : JumpPage::kBytes;
    if (gap_end > gap_start && gap_end - gap_start >= needed) {
      // The stack grows from above, the heap from below: the other end of the gap is far from either.
      const uint64_t page = below_stack ? gap_start : gap_end - JumpPage::kBytes;
      if (IsWithinReach(page, library)) pages.push_back(page);
    }
    gap_start = std::max(gap_start, ToNumber(mapping.range.end));
    behind_heap = mapping.path == "[heap]";
  }
  std::stable_sort(pages.begin(), pages.end(),
                   [&](uint64_t a, uint64_t b) { return Distance(a, library) < Distance(b, library); });
  return pages;
}

std::vector<uint8_t> EncodeFarJump(uint64_t to) {
  std::vector<uint8_t> code = {0xff, 0x25, 0, 0, 0, 0};
  const size_t at = code.size();
  code.resize(at + sizeof to);
  memcpy(&code[at], &to, sizeof to);
  return code;
}

absl::StatusOr<JumpPage> JumpPages::Near(const RemoteRange& library) {
  for (const RemoteRange& page : shim_.JumpPages())
    if (IsWithinReach(ToNumber(page.start), library)) return JumpPage{page.start};
  return Map(library);
}

absl::StatusOr<JumpPage> JumpPages::Map(const RemoteRange& library) {
  const absl::StatusOr<AttachControl> control = shim_.ReadControl();
  if (!control.ok()) return control.status();
  const std::vector<RemoteRange> known = shim_.JumpPages();
  uint32_t row = 0;  // that names none, or one of a nodeleak that was killed before it was made
  const auto is_known = [&](uint64_t address) {
    return std::any_of(known.begin(), known.end(), [&](const RemoteRange& page) { return page.Contains(address); });
  };
  while (row < recording::kMaxJumpPages && is_known(control->jump_pages[row])) ++row;
  if (row == recording::kMaxJumpPages)
    return absl::ResourceExhaustedError("it has all the pages of jumps that nodeleak makes in one process");
  const absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(memory_, objects_, &shim_);
  if (!caller.ok()) return caller.status();
  std::vector<uint64_t> free_pages = FindFreePages(ReadMappings(memory_.pid()), library);
  free_pages.resize(std::min(free_pages.size(), kMostAttempts));
  for (uint64_t page : free_pages) {
    constexpr uint64_t kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    const absl::StatusOr<std::vector<uint64_t>> mapped =
        caller->Call({RemoteStep::Syscall(SYS_mmap, {page, JumpPage::kBytes, PROT_READ | PROT_EXEC, kFlags, ~0ull, 0})},
                     Borrow::Idle(), kPatience, kLimit);
    if (!mapped.ok()) return mapped.status();
    const auto error = static_cast<int64_t>(mapped->front());
    if (error == -EEXIST) continue;
    if (error < 0)
      return absl::PermissionDeniedError(
          absl::StrCat("it may not map a page of code (mmap: ", strerror(static_cast<int>(-error)),
                       "); is it under a seccomp filter or a security module?"));
    ReachTestPoint("page mapped");
    if (absl::Status status = memory_.WriteValue(static_cast<RemoteAddress>(page), recording::kJumpPageMagic);
        !status.ok())
      return status;
    if (absl::Status status = shim_.WriteJumpPage(row, page); !status.ok()) return status;
    return JumpPage{static_cast<RemoteAddress>(page)};
  }
  return absl::OutOfRangeError(absl::StrFormat(
      "the recorder was loaded more than 2 GiB from it, and nothing is free in between: the process has reserved all "
      "that is near %#x; start it under nodeleak instead",
      ToNumber(library.start)));
}

}  // namespace nodeleak::tracer
