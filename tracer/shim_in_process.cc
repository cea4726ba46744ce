#include "tracer/shim_in_process.h"

#include <stddef.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nodeleak::tracer {
namespace {

using recording::AttachControl;
using recording::AttachState;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

absl::Status OtherVersion() {
  return absl::FailedPreconditionError(
      "another version of nodeleak is loaded in it already; use that version, or start the process again");
}

}  // namespace

absl::StatusOr<std::optional<ShimInProcess>> ShimInProcess::Find(const RemoteMemory& memory,
                                                                 const RemoteObjects& objects) {
  const RemoteObject* object = objects.FindDefinition(recording::kAttachControlSymbol);
  if (object == nullptr) return std::nullopt;
  ShimInProcess shim(memory, *object);
  const auto control = objects.FindSymbol(*object, recording::kAttachControlSymbol);
  const auto start = objects.FindSymbol(*object, recording::kAttachStartSymbol);
  const auto safe_point = objects.FindSymbol(*object, recording::kAttachSafePointSymbol);
  if (!control.has_value() || !start.has_value() || !safe_point.has_value()) return OtherVersion();
  shim.control_ = control->address;
  shim.start_ = start->address;
  shim.safe_point_ = safe_point->address;
  const absl::StatusOr<AttachControl> content = shim.ReadControl();
  if (!content.ok()) return content.status();
  if (content->magic != recording::kAttachMagic || content->version != recording::kAttachVersion ||
      content->control_bytes != sizeof(AttachControl))
    return OtherVersion();
  return shim;
}

RemoteAddress ShimInProcess::HookRow(uint32_t index) const {
  return control_ + offsetof(AttachControl, hooks) + index * sizeof(recording::AttachHook);
}

std::vector<RemoteRange> ShimInProcess::JumpPages() const {
  std::vector<RemoteRange> pages;
  const absl::StatusOr<AttachControl> control = ReadControl();
  if (!control.ok()) return pages;
  for (uint64_t address : control->jump_pages) {
    constexpr uint64_t kPageBytes = 4096;
    const auto start = static_cast<RemoteAddress>(address);
    uint64_t magic = 0;
    if (memory_->TryRead(start, &magic, sizeof magic) && magic == recording::kJumpPageMagic)
      pages.push_back({start, start + kPageBytes});
  }
  return pages;
}

std::vector<RemoteRange> ShimInProcess::Code() const {
  std::vector<RemoteRange> code = JumpPages();
  code.push_back(object_->range);
  return code;
}

absl::StatusOr<AttachControl> ShimInProcess::ReadControl() const {
  absl::StatusOr<AttachControl> control = memory_->ReadValue<AttachControl>(control_);
  if (!control.ok()) return control;
  // Untrusted: it lies in somebody else's process.
  control->hook_count = std::min(control->hook_count, recording::kMaxAttachHooks);
  control->why[sizeof control->why - 1] = '\0';
  control->recording_path[sizeof control->recording_path - 1] = '\0';
  for (recording::AttachHook& hook : control->hooks) {
    hook.symbol[sizeof hook.symbol - 1] = '\0';
    hook.saved_bytes = std::min<uint32_t>(hook.saved_bytes, sizeof hook.saved);
  }
  return control;
}

absl::Status ShimInProcess::WriteSettings(const AttachControl& control) const {
  struct Field {
    size_t offset, bytes;
  };
#define SETTING(name) \
  { offsetof(AttachControl, name), sizeof control.name }
  constexpr Field kSettings[] = {SETTING(max_recording_bytes), SETTING(sample_bytes), SETTING(other_allocator),
                                 SETTING(recording_path), SETTING(shim_path)};
#undef SETTING
  for (const Field& field : kSettings) {
    const char* from = reinterpret_cast<const char*>(&control) + field.offset;
    if (absl::Status status = memory_->Write(control_ + field.offset, from, field.bytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ShimInProcess::WriteRequest(recording::AttachRequest request) const {
  return memory_->WriteValue(control_ + offsetof(AttachControl, request), static_cast<uint32_t>(request));
}

absl::Status ShimInProcess::WriteOffer(recording::AttachOffer offer) const {
  const uint32_t pid = std::exchange(offer.pid, 0);
  const RemoteAddress at = control_ + offsetof(AttachControl, offer);
  if (absl::Status status = memory_->WriteValue(at, offer); !status.ok()) return status;
  return memory_->WriteValue(at + offsetof(recording::AttachOffer, pid), pid);
}

absl::Status ShimInProcess::WriteKeep(bool keep) const {
  return memory_->WriteValue(control_ + offsetof(AttachControl, keep), static_cast<uint32_t>(keep ? 1 : 0));
}

absl::Status ShimInProcess::WritePartlyHooked(bool partly) const {
  return memory_->WriteValue(control_ + offsetof(AttachControl, partly_hooked), static_cast<uint32_t>(partly ? 1 : 0));
}

absl::Status ShimInProcess::WriteWatchLinks() const {
  return memory_->WriteValue(control_ + offsetof(AttachControl, watch_links), uint32_t{1});
}

absl::Status ShimInProcess::WriteJumpPage(uint32_t index, uint64_t address) const {
  return memory_->WriteValue(control_ + offsetof(AttachControl, jump_pages) + index * sizeof address, address);
}

absl::Status ShimInProcess::WriteHookRow(uint32_t index, const recording::AttachHook& row) const {
  return memory_->WriteValue(HookRow(index), row);
}

absl::StatusOr<AttachControl> ShimInProcess::AwaitLeaving(std::initializer_list<AttachState> these,
                                                          milliseconds patience) const {
  const auto begin = steady_clock::now();
  for (;;) {
    absl::StatusOr<AttachControl> control = ReadControl();
    if (!control.ok()) return control;
    const bool still = std::find(these.begin(), these.end(), static_cast<AttachState>(control->state)) != these.end();
    if (!still || steady_clock::now() - begin > patience) return control;
    std::this_thread::sleep_for(milliseconds(1));
  }
}

}  // namespace nodeleak::tracer
