// Outside. Pages of code of our own in another process, near a library that the recorder was loaded more than 2 GiB
// away from: with room for the displaced instructions of its functions, and for jumps over any distance to the hooks.
// Once mapped they stay, like the recorder itself: a thread may be at an instruction there. AttachControl::jump_pages
// remembers them, so that every later attach uses the same ones.
#pragma once

#include <stdint.h>

#include <vector>

#include "absl/status/statusor.h"
#include "tracer/proc_files.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/shim_in_process.h"

namespace nodeleak::tracer {

struct JumpPage {
  RemoteAddress start;
  // Of one row of AttachControl::hooks.
  RemoteAddress Trampoline(uint32_t row) const { return start + kHeadBytes + uint64_t{row} * kRowBytes; }
  RemoteAddress FarJump(uint32_t row) const { return Trampoline(row) + recording::kTrampolineBytes; }

  static constexpr uint64_t kBytes = 4096, kHeadBytes = 64, kRowBytes = recording::kTrampolineBytes + 16;
  static_assert(kHeadBytes + kRowBytes * recording::kMaxAttachHooks <= kBytes);
};

class JumpPages {
 public:
  JumpPages(const RemoteMemory& memory, const RemoteObjects& objects, const ShimInProcess& shim)
      : memory_(memory), objects_(objects), shim_(shim) {}

  // One that a near jump reaches from everywhere in `library`, and back; mapped on a borrowed thread when there is
  // none.
  absl::StatusOr<JumpPage> Near(const RemoteRange& library);

 private:
  absl::StatusOr<JumpPage> Map(const RemoteRange& library);

  const RemoteMemory& memory_;
  const RemoteObjects& objects_;
  const ShimInProcess& shim_;
};

// jmp [rip]; the address: from anywhere to anywhere, and no register is touched.
std::vector<uint8_t> EncodeFarJump(uint64_t to);

// Addresses of free pages within reach of all of `library`, the nearest first, that are in nobody's way: not where the
// stack or the heap grows to. `mappings` as /proc/PID/maps has them.
std::vector<uint64_t> FindFreePages(const std::vector<Mapping>& mappings, const RemoteRange& library);

}  // namespace nodeleak::tracer
