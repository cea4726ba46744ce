// Outside. The jumps at the entries of a process's allocator functions: planned and prepared while it runs, written and
// taken away while it is stopped. What stood there is kept in the process itself (AttachControl::hooks), written before
// the first jump is, so that whoever comes after a tracer that was killed can put it back.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tracer/relocate_prologue.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/shim_in_process.h"
#include "tracer/stopped_world.h"

namespace nodeleak::tracer {

struct HookPlan {
  uint32_t row = 0;  // in AttachControl::hooks
  std::string symbol;
  RemoteAddress function, trampoline, original_slot;
  RemoteAddress enable = RemoteAddress::kNull;
  std::vector<uint8_t> before, jump;  // kJumpBytes each
  RelocatedPrologue prologue;
};

struct HookPlans {
  std::vector<HookPlan> hooks;
  std::vector<std::string> notes;  // functions that cannot be hooked, and why
};

// Every row of the shim at its first definition in the order of the dynamic linker, the shim's own left out: what the
// program itself would be bound to. An error when malloc or free cannot be hooked: then the numbers would be wrong.
absl::StatusOr<HookPlans> PlanHooks(const RemoteMemory& memory, const RemoteObjects& objects,
                                    const ShimInProcess& shim);

// Trampolines, and what the rows remember. Changes nothing that the process runs.
absl::Status PrepareHooks(const RemoteMemory& memory, const ShimInProcess& shim, const HookPlans& plans);

// In a stopped world. Unavailable, with nothing changed: a thread will return into the bytes that the jump takes the
// place of (from a signal handler); let it run and try again.
absl::Status WriteHooks(const RemoteMemory& memory, StoppedWorld* world, const HookPlans& plans);

// In a stopped world, by what the rows remember: all that are ours are taken away.
absl::Status RemoveHooks(const RemoteMemory& memory, const ShimInProcess& shim);

// Some row says that its function is, or may be, hooked.
bool MayBeHooked(const recording::AttachControl& control);

}  // namespace nodeleak::tracer
