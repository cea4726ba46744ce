// Outside. The shim as it lies in another process: its control block (recording/attach_control.h) and its functions.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "recording/attach_control.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

class ShimInProcess {
 public:
  // nullopt: not loaded. An error: another version of it is.
  static absl::StatusOr<std::optional<ShimInProcess>> Find(const RemoteMemory& memory, const RemoteObjects& objects);

  const RemoteObject& object() const { return *object_; }
  RemoteAddress start() const { return start_; }
  RemoteAddress safe_point() const { return safe_point_; }
  RemoteAddress HookRow(uint32_t index) const;
  std::vector<RemoteRange> JumpPages() const;  // those that are there
  // Where the code of the recorder lies: the shim itself, and its pages.
  std::vector<RemoteRange> Code() const;

  absl::StatusOr<recording::AttachControl> ReadControl() const;
  absl::Status WriteSettings(const recording::AttachControl& control) const;  // of the next start; nothing else of it
  absl::Status WriteRequest(recording::AttachRequest request) const;
  absl::Status WriteOffer(recording::AttachOffer offer) const;
  absl::Status WriteKeep(bool keep) const;
  absl::Status WritePartlyHooked(bool partly) const;
  absl::Status WriteWatchLinks() const;
  absl::Status WriteJumpPage(uint32_t index, uint64_t address) const;
  absl::Status WriteHookRow(uint32_t index, const recording::AttachHook& row) const;

  // The state after it has left all of `these`, or after `patience`.
  absl::StatusOr<recording::AttachControl> AwaitLeaving(std::initializer_list<recording::AttachState> these,
                                                        std::chrono::milliseconds patience) const;

 private:
  ShimInProcess(const RemoteMemory& memory, const RemoteObject& object) : memory_(&memory), object_(&object) {}

  const RemoteMemory* memory_;
  const RemoteObject* object_;
  RemoteAddress control_ = RemoteAddress::kNull, start_ = RemoteAddress::kNull, safe_point_ = RemoteAddress::kNull;
};

}  // namespace nodeleak::tracer
