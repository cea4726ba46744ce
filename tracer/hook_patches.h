// Outside. The jumps at the entries of a process's allocator functions: planned and prepared while it runs, written and
// taken away while it is stopped. What stood there is kept in the process itself (AttachControl::hooks), written before
// the first jump is, so that whoever comes after a tracer that was killed can put it back. A function whose entry
// cannot be replaced is hooked in the slots through which the loaded objects call it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tracer/linkage_slots.h"
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
  std::vector<uint8_t> before, jump;  // kJumpBytes each; empty: by `slots` instead
  RelocatedPrologue prologue;
  RemoteAddress far_jump = RemoteAddress::kNull;  // where `jump` leads when the hook is out of its reach
  RemoteAddress hook = RemoteAddress::kNull;
  std::vector<RemoteAddress> slots;  // get the hook's address
};

struct HookPlans {
  std::vector<HookPlan> hooks;
  std::vector<std::string> notes;  // functions that cannot be hooked, or only by their slots, and why
  bool partly = false;             // some are hooked by their slots
};

// The slots of the functions that are hooked by them, found while the process runs.
struct HookedSlots {
  struct Row {
    uint32_t row;
    RemoteAddress hook;
    std::vector<LinkageSlot> slots;
  };
  std::vector<Row> rows;
};

// Every row of the shim at its first definition in the order of the dynamic linker, the shim's own left out: what the
// program itself would be bound to. An error when malloc or free cannot be hooked: then the numbers would be wrong.
// Where the shim is out of a function's reach, a page of jumps is mapped into the process.
absl::StatusOr<HookPlans> PlanHooks(const RemoteMemory& memory, const RemoteObjects& objects,
                                    const ShimInProcess& shim);

// Trampolines, and what the rows remember. Changes nothing that the process runs.
absl::Status PrepareHooks(const RemoteMemory& memory, const ShimInProcess& shim, const HookPlans& plans);

// In a stopped world. Unavailable, with nothing changed: a thread will return into the bytes that the jump takes the
// place of (from a signal handler); let it run and try again.
absl::Status WriteHooks(const RemoteMemory& memory, StoppedWorld* world, const HookPlans& plans);

// In a stopped world, by what the rows remember: all that are ours are taken away.
absl::Status RemoveHooks(const RemoteMemory& memory, const ShimInProcess& shim, const HookedSlots& slots);
HookedSlots FindHookedSlots(const RemoteMemory& memory, const RemoteObjects& objects, const ShimInProcess& shim);

// Some row says that its function is, or may be, hooked.
bool MayBeHooked(const recording::AttachControl& control);

}  // namespace nodeleak::tracer
