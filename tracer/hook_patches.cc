#include "tracer/hook_patches.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tracer/jump_page.h"
#include "tracer/test_point.h"

namespace nodeleak::tracer {
namespace {

using recording::AttachControl;
using recording::AttachHook;

constexpr size_t kMostFunctionBytes = 64 * 1024;
constexpr const char* kIndispensable[] = {"malloc", "free"};

// The function as it is without us.
absl::StatusOr<std::vector<uint8_t>> ReadFunction(const RemoteMemory& memory, const RemoteSymbol& function,
                                                  const AttachHook& row) {
  std::vector<uint8_t> bytes(std::clamp<uint64_t>(function.bytes, 1, kMostFunctionBytes));
  if (absl::Status status = memory.Read(function.address, bytes.data(), bytes.size()); !status.ok()) return status;
  if (row.patched_at == ToNumber(function.address) && row.saved_bytes <= bytes.size())
    memcpy(bytes.data(), row.saved, row.saved_bytes);
  return bytes;
}

// Somebody else's hook (another profiler): a jump at the entry that leaves the library.
bool IsPatchedByOthers(const std::vector<uint8_t>& function, uint64_t address, const RemoteObject& object) {
  const uint64_t target = DecodeJump(function, address);
  return target != 0 && !object.range.Contains(target);
}

class Planner {
 public:
  Planner(const RemoteMemory& memory, const RemoteObjects& objects, const ShimInProcess& shim)
      : memory_(memory), objects_(objects), shim_(shim), pages_(memory, objects, shim) {}

  absl::Status Plan(uint32_t index, const AttachHook& row) {
    const RemoteObject* object = objects_.FindDefinition(row.symbol, &shim_.object());
    if (object == nullptr) return absl::OkStatus();  // this libc does not have it
    if (row.enable != 0 && object != objects_.FindDefinition("malloc", &shim_.object())) return absl::OkStatus();
    const RemoteSymbol function = *objects_.FindSymbol(*object, row.symbol);
    const bool alias = std::any_of(plans_.hooks.begin(), plans_.hooks.end(),
                                   [&](const HookPlan& other) { return other.function == function.address; });
    if (alias) return absl::OkStatus();
    const auto hook = objects_.FindSymbol(shim_.object(), row.symbol);
    if (!hook.has_value()) return absl::InternalError(absl::StrCat("the recorder has no hook for ", row.symbol));
    HookPlan plan;
    plan.row = index;
    plan.symbol = row.symbol;
    plan.function = function.address;
    plan.hook = hook->address;
    plan.trampoline = static_cast<RemoteAddress>(row.trampoline);
    plan.original_slot = static_cast<RemoteAddress>(row.original);
    plan.enable = static_cast<RemoteAddress>(row.enable);
    const absl::Status status = PlanEntry(row, *object, function, &plan);
    const std::string what = absl::StrCat(row.symbol, " in ", object->name.empty() ? "the program" : object->name);
    if (!status.ok()) PlanSlots(what, status, &plan);
    if (status.ok() || !plan.slots.empty()) {
      plans_.hooks.push_back(std::move(plan));
      return absl::OkStatus();
    }
    const std::string why = absl::StrCat(what, " cannot be hooked: ", status.message());
    for (const char* name : kIndispensable)
      if (strcmp(row.symbol, name) == 0) return absl::FailedPreconditionError(why);
    plans_.notes.push_back(why);
    return absl::OkStatus();
  }
  HookPlans Take() { return std::move(plans_); }

 private:
  absl::Status PlanEntry(const AttachHook& row, const RemoteObject& object, const RemoteSymbol& function,
                         HookPlan* plan) {
    const absl::StatusOr<std::vector<uint8_t>> bytes = ReadFunction(memory_, function, row);
    if (!bytes.ok()) return bytes.status();
    if (IsPatchedByOthers(*bytes, ToNumber(function.address), object))
      return absl::FailedPreconditionError("something else has hooked it already");
    absl::Status status = Displace(*bytes, plan->hook, plan);
    if (!absl::IsOutOfRange(status)) return status;
    const absl::StatusOr<JumpPage> page = pages_.Near(object.range);
    if (!page.ok()) return page.status();
    plan->trampoline = page->Trampoline(plan->row);
    plan->far_jump = page->FarJump(plan->row);
    return Displace(*bytes, plan->far_jump, plan);
  }

  // The entry jumps to `target`, and what stood there goes to the plan's trampoline. Nothing of the plan changes when
  // that cannot be.
  static absl::Status Displace(const std::vector<uint8_t>& function, RemoteAddress target, HookPlan* plan) {
    absl::StatusOr<RelocatedPrologue> prologue =
        RelocatePrologue(function, ToNumber(plan->function), ToNumber(plan->trampoline));
    if (!prologue.ok()) return prologue.status();
    if (prologue->code.size() > recording::kTrampolineBytes)
      return absl::FailedPreconditionError("its first instructions are too long");
    absl::StatusOr<std::vector<uint8_t>> jump = EncodeJump(ToNumber(plan->function), ToNumber(target));
    if (!jump.ok()) return jump.status();
    plan->before.assign(function.begin(), function.begin() + kJumpBytes);
    plan->jump = *std::move(jump);
    plan->prologue = *std::move(prologue);
    return absl::OkStatus();
  }

  void PlanSlots(const std::string& what, const absl::Status& why, HookPlan* plan) {
    plan->slots = SlotsThatLeadTo(memory_, FindLinkageSlots(memory_, objects_, plan->symbol.c_str(), &shim_.object()),
                                  plan->function);
    if (plan->slots.empty()) return;
    plans_.partly = true;
    plans_.notes.push_back(absl::StrCat(what, " cannot be hooked at its beginning (", why.message(),
                                        "): only calls by ", plan->slots.size(),
                                        " links of the loaded libraries are seen"));
  }

  const RemoteMemory& memory_;
  const RemoteObjects& objects_;
  const ShimInProcess& shim_;
  JumpPages pages_;
  HookPlans plans_;
};

bool IsInAny(const std::vector<RemoteRange>& ranges, uint64_t address) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [address](const RemoteRange& range) { return range.Contains(address); });
}

bool IsInside(uint64_t address, const HookPlan& plan) {
  return !plan.jump.empty() && address > ToNumber(plan.function) && address < ToNumber(plan.function) + kJumpBytes;
}

// A signal handler will return to an instruction that is replaced: its address stands on the stack.
bool ReturnsInside(const RemoteMemory& memory, const user_regs_struct& registers, const HookPlans& plans) {
  constexpr size_t kWords = 2048;  // a signal frame lies near the top of what runs on it
  const std::vector<uint64_t> words = memory.ReadWords(static_cast<RemoteAddress>(registers.rsp), kWords);
  return std::any_of(words.begin(), words.end(), [&](uint64_t word) {
    return std::any_of(plans.hooks.begin(), plans.hooks.end(),
                       [word](const HookPlan& plan) { return IsInside(word, plan); });
  });
}

// A thread that is at a displaced instruction goes on at its copy.
absl::Status MoveOut(StoppedThread* stopped, const HookPlan& plan) {
  for (const RelocatedPrologue::Instruction& instruction : plan.prologue.instructions) {
    if (instruction.from == 0 || instruction.from >= kJumpBytes ||
        stopped->registers.rip != ToNumber(plan.function) + instruction.from)
      continue;
    stopped->registers.rip = ToNumber(plan.trampoline) + instruction.to;
    return stopped->thread.WriteRegisters(stopped->registers);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HookPlans> PlanHooks(const RemoteMemory& memory, const RemoteObjects& objects,
                                    const ShimInProcess& shim) {
  const absl::StatusOr<AttachControl> control = shim.ReadControl();
  if (!control.ok()) return control.status();
  Planner planner(memory, objects, shim);
  for (uint32_t i = 0; i < control->hook_count; ++i)
    if (absl::Status status = planner.Plan(i, control->hooks[i]); !status.ok()) return status;
  return planner.Take();
}

absl::Status PrepareHooks(const RemoteMemory& memory, const ShimInProcess& shim, const HookPlans& plans) {
  for (const HookPlan& plan : plans.hooks) {
    absl::StatusOr<AttachHook> row = memory.ReadValue<AttachHook>(shim.HookRow(plan.row));
    if (!row.ok()) return row.status();
    const bool at_entry = !plan.jump.empty();
    absl::Status status = memory.Write(plan.trampoline, plan.prologue.code.data(), plan.prologue.code.size());
    if (status.ok() && plan.far_jump != RemoteAddress::kNull) {
      const std::vector<uint8_t> jump = EncodeFarJump(ToNumber(plan.hook));
      status = memory.Write(plan.far_jump, jump.data(), jump.size());
    }
    if (status.ok())
      status = memory.WriteValue(plan.original_slot, ToNumber(at_entry ? plan.trampoline : plan.function));
    if (status.ok() && plan.enable != RemoteAddress::kNull) status = memory.WriteValue(plan.enable, true);
    if (!status.ok()) return status;
    memcpy(row->saved, plan.before.data(), plan.before.size());
    row->saved_bytes = static_cast<uint32_t>(plan.before.size());
    row->patched_at = ToNumber(plan.function);
    row->hook = ToNumber(plan.hook);
    if (status = shim.WriteHookRow(plan.row, *row); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WriteHooks(const RemoteMemory& memory, StoppedWorld* world, const HookPlans& plans) {
  for (const StoppedThread& stopped : world->threads())
    if (ReturnsInside(memory, stopped.registers, plans))
      return absl::UnavailableError(
          "a thread is in a signal handler that interrupted the allocator's first instructions");
  size_t written = 0;
  for (const HookPlan& plan : plans.hooks) {
    for (StoppedThread& stopped : world->threads())
      if (absl::Status status = MoveOut(&stopped, plan); !status.ok()) return status;
    if (absl::Status status = memory.Write(plan.function, plan.jump.data(), plan.jump.size()); !status.ok())
      return status;
    for (RemoteAddress slot : plan.slots)
      if (absl::Status status = memory.WriteValue(slot, ToNumber(plan.hook)); !status.ok()) return status;
    if (++written == plans.hooks.size() / 2) ReachTestPoint("half patched");
  }
  return absl::OkStatus();
}

HookedSlots FindHookedSlots(const RemoteMemory& memory, const RemoteObjects& objects, const ShimInProcess& shim) {
  HookedSlots hooked;
  const absl::StatusOr<AttachControl> control = shim.ReadControl();
  if (!control.ok()) return hooked;
  for (uint32_t i = 0; i < control->hook_count; ++i) {
    const AttachHook& row = control->hooks[i];
    const auto hook = objects.FindSymbol(shim.object(), row.symbol);
    if (row.patched_at == 0 || row.saved_bytes != 0 || !hook.has_value()) continue;
    hooked.rows.push_back({i, hook->address, FindLinkageSlots(memory, objects, row.symbol, &shim.object())});
  }
  return hooked;
}

absl::Status RemoveHooks(const RemoteMemory& memory, const ShimInProcess& shim, const HookedSlots& slots) {
  const absl::StatusOr<AttachControl> control = shim.ReadControl();
  if (!control.ok()) return control.status();
  const std::vector<RemoteRange> our_code = shim.Code();
  for (const HookedSlots::Row& row : slots.rows)
    for (const LinkageSlot& slot : row.slots) {
      // Only what still leads to us: the object may be gone, and another one be there.
      uint64_t target = 0;
      if (!memory.TryRead(slot.address, &target, sizeof target) || target != ToNumber(row.hook)) continue;
      absl::Status status = memory.WriteValue(slot.address, control->hooks[row.row].patched_at);
      if (!status.ok()) return status;
    }
  for (uint32_t i = 0; i < control->hook_count; ++i) {
    AttachHook row = control->hooks[i];
    if (row.patched_at == 0) continue;
    uint8_t now[kJumpBytes];
    const auto function = static_cast<RemoteAddress>(row.patched_at);
    // Only what is ours: the library may be gone, and another one be there.
    const bool ours = row.saved_bytes == kJumpBytes && memory.TryRead(function, now, sizeof now) &&
                      IsInAny(our_code, DecodeJump(now, row.patched_at));
    if (ours)
      if (absl::Status status = memory.Write(function, row.saved, row.saved_bytes); !status.ok()) return status;
    row.patched_at = 0;
    if (absl::Status status = shim.WriteHookRow(i, row); !status.ok()) return status;
    if (i == control->hook_count / 2) ReachTestPoint("half unpatched");
  }
  return absl::OkStatus();
}

bool MayBeHooked(const AttachControl& control) {
  return std::any_of(control.hooks, control.hooks + control.hook_count,
                     [](const AttachHook& hook) { return hook.patched_at != 0; });
}

}  // namespace nodeleak::tracer
