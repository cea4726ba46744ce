#include "preload/unwind/stack_walk.h"

#include <string.h>
#include <ucontext.h>

#include "preload/base/system.h"
#include "preload/unwind/modules.h"
#include "preload/unwind/unwind_rules.h"
#include "preload/v8/js_frames.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

using recording::MarkerId;

// Recursion can be a hundred thousand frames deep; beyond this the outermost part is not looked for.
constexpr uint32_t kMaxFramesVisited = 20'000;
// The kept part: this many innermost frames, one marker, and the outermost ones in a ring.
constexpr uint32_t kInnermostKept = kMaxDepth / 2;
constexpr uint32_t kOutermostKept = kMaxDepth - kInnermostKept - 1;

RuleCache g_rules;
bool g_has_v8;

WalkedFrame Marker(MarkerId id, uint64_t detail) {
  return {static_cast<uint64_t>(id), detail, 0, 0, WalkedType::kMarker, 0};
}

// Collects frames: all of them up to kMaxDepth, else the innermost ones, a marker, and in a ring behind it the last
// ones seen.
class FrameCollector {
 public:
  explicit FrameCollector(WalkedStack* stack) : stack_(stack) {
    stack->depth = 0;
    stack->truncated = false;
    stack->hash = 0x243f6a8885a308d3ull;
  }

  void Add(const WalkedFrame& frame) {
    // Along the way: the multiplications overlap with the loads of the next frame.
    uint64_t hash = (stack_->hash ^ frame.key_a) * 0x9e3779b97f4a7c15ull;
    if (frame.key_b != 0) hash = (hash ^ hash >> 32 ^ frame.key_b) * 0xbf58476d1ce4e5b9ull;
    stack_->hash = hash ^ hash >> 29;
    if (__builtin_expect(stack_->depth < kMaxDepth, 1)) {
      stack_->frames[stack_->depth++] = frame;
      return;
    }
    stack_->truncated = true;
    stack_->frames[kInnermostKept + 1 + ring_] = frame;  // the oldest of the outer part
    ring_ = (ring_ + 1) % kOutermostKept;
  }
  void Finish() {
    if (!stack_->truncated) return;
    stack_->frames[kInnermostKept] = Marker(MarkerId::kTruncated, 0);
    Rotate(stack_->frames + kInnermostKept + 1, kOutermostKept, ring_);
  }

 private:
  static void Reverse(WalkedFrame* frames, uint32_t count) {
    for (uint32_t i = 0; i + 1 < count - i; ++i) {
      const WalkedFrame swapped = frames[i];
      frames[i] = frames[count - 1 - i];
      frames[count - 1 - i] = swapped;
    }
  }
  // Brings element `by` to the front.
  static void Rotate(WalkedFrame* frames, uint32_t count, uint32_t by) {
    Reverse(frames, by);
    Reverse(frames + by, count - by);
    Reverse(frames, count);
  }

  WalkedStack* stack_;
  uint32_t ring_ = 0;
};

uint64_t Load(uint64_t address) { return *reinterpret_cast<const uint64_t*>(address); }

enum class NativeStep : uint8_t { kStepped, kEnd, kFailed };

bool Advance(WalkRegisters* registers, const StackBounds& bounds, uint64_t cfa, uint64_t fp) {
  if (cfa <= registers->sp || (cfa & 7) != 0 || !bounds.Contains(cfa - 8, 8)) return false;
  *registers = {Load(cfa - 8), cfa, fp};
  return true;
}

NativeStep StepByRule(UnwindRule rule, WalkRegisters* registers, const StackBounds& bounds) {
  const uint64_t cfa = (rule.from_rbp() ? registers->fp : registers->sp) + static_cast<uint64_t>(rule.cfa_offset());
  uint64_t fp = registers->fp;
  if (rule.rbp_slot() != 0) {
    const uint64_t slot = cfa + static_cast<uint64_t>(rule.rbp_slot());
    if ((slot & 7) != 0 || !bounds.Contains(slot, 8)) return NativeStep::kFailed;
    fp = Load(slot);
  }
  return Advance(registers, bounds, cfa, fp) ? NativeStep::kStepped : NativeStep::kFailed;
}

NativeStep StepByFramePointer(WalkRegisters* registers, const StackBounds& bounds) {
  const uint64_t fp = registers->fp;
  if ((fp & 7) != 0 || fp < registers->sp || !bounds.Contains(fp, 16)) return NativeStep::kFailed;
  return Advance(registers, bounds, fp + 16, Load(fp)) ? NativeStep::kStepped : NativeStep::kFailed;
}

// The kernel pushed a ucontext_t right where sp points once the handler's return address is popped (Linux,
// arch/x86/kernel/signal.c, rt_sigframe).
NativeStep StepSignalFrame(WalkRegisters* registers, StackBounds* bounds) {
  if (!bounds->Contains(registers->sp, sizeof(ucontext_t))) return NativeStep::kFailed;
  const ucontext_t* context = reinterpret_cast<const ucontext_t*>(registers->sp);
  const greg_t* saved = context->uc_mcontext.gregs;
  WalkRegisters interrupted = {static_cast<uint64_t>(saved[REG_RIP]) + 1, static_cast<uint64_t>(saved[REG_RSP]),
                               static_cast<uint64_t>(saved[REG_RBP])};
  if (!bounds->Contains(interrupted.sp, 8)) return NativeStep::kFailed;  // an alternate signal stack ends the walk
  *registers = interrupted;
  bounds->low = interrupted.sp;
  return NativeStep::kStepped;
}

NativeStep StepNative(UnwindRule rule, WalkRegisters* registers, StackBounds* bounds) {
  switch (rule.kind()) {
    case RuleKind::kFrame:
      return StepByRule(rule, registers, *bounds);
    case RuleKind::kSignal:
      return StepSignalFrame(registers, bounds);
    case RuleKind::kEnd:
      return NativeStep::kEnd;
    case RuleKind::kFramePointer:
      return StepByFramePointer(registers, *bounds);
    case RuleKind::kComplex: {
      const uint64_t sp = registers->sp;
      if (!g_rules.StepForReal(registers) || registers->sp <= sp || !bounds->Contains(registers->sp, 8))
        return NativeStep::kFailed;
      return NativeStep::kStepped;
    }
    case RuleKind::kNone:
    case RuleKind::kUnknownCode:
      break;
  }
  return NativeStep::kFailed;
}

// A pc that no module and no V8 range holds: something was mapped since. Asked at most once per page and 100 ms.
bool LookAgain(uint64_t pc) {
  struct Asked {
    uint64_t page;
    uint64_t until_ns;
  };
  static Asked asked[64];
  Asked& slot = asked[(pc >> 12) % 64];
  constexpr uint64_t kRetryNs = 100'000'000;
  const uint64_t now = CoarseMonotonicNanoseconds();
  if (__atomic_load_n(&slot.page, __ATOMIC_RELAXED) == pc >> 12 &&
      now < __atomic_load_n(&slot.until_ns, __ATOMIC_RELAXED))
    return false;
  __atomic_store_n(&slot.page, pc >> 12, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.until_ns, now + kRetryNs, __ATOMIC_RELAXED);
  if (RefreshModules()) ForgetUnwindRules();
  return true;
}

UnwindRule RuleFor(uint64_t return_address) {
  UnwindRule rule = g_rules.Derive(return_address);
  if (rule.kind() == RuleKind::kUnknownCode && LookAgain(return_address - 1)) rule = g_rules.Derive(return_address);
  return rule;
}

bool IsV8(uint64_t pc) {
  if (!g_has_v8) return false;
  return v8::IsV8Code(pc, FindModule(pc) != nullptr);
}

// Our own frames keep rbp (-fno-omit-frame-pointer): out to the first caller.
bool LeaveShim(WalkRegisters* registers, const StackBounds& bounds) {
  for (int frames = 0; frames < 16 && InShim(registers->pc); ++frames) {
    if (StepByFramePointer(registers, bounds) != NativeStep::kStepped) return false;
  }
  return true;
}

}  // namespace

bool StartStackWalk(bool has_v8) {
  g_has_v8 = has_v8;
  RefreshModules();
  return g_rules.Start();
}

void ForgetUnwindRules() { g_rules.Flush(); }

__attribute__((noinline)) void WalkStack(StackBounds bounds, WalkedStack* stack) {
  stack->incomplete = true;
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  bounds.low = here;
  WalkRegisters registers = {Load(here + 8), here + 16, Load(here)};
  FrameCollector collector(stack);
  bool alive = LeaveShim(&registers, bounds);
  for (uint32_t steps = 0; alive && registers.pc != 0 && steps < kMaxFramesVisited; ++steps) {
    UnwindRule rule = g_rules.Find(registers.pc);
    if (rule.kind() == RuleKind::kNone) {
      if (IsV8(registers.pc - 1)) {
        WalkedFrame frame;
        const v8::StepResult step = v8::StepV8Frame(&registers, bounds, &frame);
        if (step != v8::StepResult::kSkip) collector.Add(frame);
        alive = step != v8::StepResult::kStop;
        continue;
      }
      rule = RuleFor(registers.pc);
    }
    if (rule.kind() == RuleKind::kUnknownCode) {
      collector.Add(Marker(MarkerId::kUnknownCode, 0));
      break;
    }
    collector.Add({registers.pc, 0, registers.pc, registers.fp, WalkedType::kNative, 0});
    const NativeStep step = StepNative(rule, &registers, &bounds);
    if (step == NativeStep::kEnd) stack->incomplete = false;
    if (step == NativeStep::kFailed) collector.Add(Marker(MarkerId::kUnwindStopped, 0));
    alive = step == NativeStep::kStepped;
  }
  if (registers.pc == 0) stack->incomplete = false;
  collector.Finish();
}

uint64_t FindStackEnd(uint64_t address) {
  MappedText maps = ReadWholeFile("/proc/self/maps");
  uint64_t end = 0;
  for (const char* p = maps.data; p != nullptr && *p != '\0';) {
    uint64_t bounds[2] = {0, 0};
    for (uint64_t& bound : bounds) {
      for (; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'); ++p) {
        bound = bound * 16 + static_cast<uint64_t>(*p <= '9' ? *p - '0' : *p - 'a' + 10);
      }
      ++p;
    }
    if (address >= bounds[0] && address < bounds[1]) {
      end = bounds[1];
      break;
    }
    p = strchr(p, '\n');
    if (p != nullptr) ++p;
  }
  UnmapMemory(maps.data, maps.mapped);
  return end;
}

}  // namespace nodeleak::preload
