#include "preload/unwind/stack_walk.h"

#include <string.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "preload/base/guard.h"
#include "preload/base/proc_text.h"
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
uint32_t g_epoch;  // counts up when what a pc means may have changed

WalkedFrame Marker(MarkerId id) {
  WalkedFrame frame = {};
  frame.key_a = static_cast<uint64_t>(id);
  frame.type = WalkedType::kMarker;
  return frame;
}

// Both only count up, so their sum changes when one of them does.
uint32_t CodeAndHeapEpoch() { return __atomic_load_n(&g_epoch, __ATOMIC_ACQUIRE) + v8::HeapMemoryEpoch(); }

constexpr uint64_t kHashSeed = 0x243f6a8885a308d3ull;

// Outermost first, so that the hash of a remembered outer part is at hand.
uint64_t HashOf(uint64_t outer, const WalkedFrame& frame) {
  if (frame.type == WalkedType::kSkipped) return outer;
  const uint64_t key = frame.key_a ^ (frame.key_b * 0xbf58476d1ce4e5b9ull >> 7);
  const uint64_t hash = (outer ^ key) * 0x9e3779b97f4a7c15ull;
  return hash ^ hash >> 32;
}

// Frames as they are met: all of them up to kMaxDepth, else the innermost ones, a marker, and in a ring behind it the
// last ones seen.
class FrameCollector {
 public:
  explicit FrameCollector(WalkedFrame* frames) : frames_(frames) {}
  uint32_t count() const { return count_; }
  bool truncated() const { return truncated_; }

  // Where the next frame goes.
  WalkedFrame* Next() {
    if (__builtin_expect(count_ < kMaxDepth, 1)) return &frames_[count_++];
    truncated_ = true;
    WalkedFrame* oldest = &frames_[kInnermostKept + 1 + ring_];  // of the outer part
    ring_ = (ring_ + 1) % kOutermostKept;
    return oldest;
  }
  void Add(const WalkedFrame& frame) { *Next() = frame; }
  void Finish() {
    if (!truncated_) return;
    frames_[kInnermostKept] = Marker(MarkerId::kTruncated);
    Rotate(frames_ + kInnermostKept + 1, kOutermostKept, ring_);
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

  WalkedFrame* frames_;
  uint32_t count_ = 0;
  uint32_t ring_ = 0;
  bool truncated_ = false;
};

// The last walk of this thread, met again from the inside.
class RememberedFrames {
 public:
  RememberedFrames(const WalkedStack& stack, uint64_t stack_end) : stack_(stack) {
    const bool valid =
        stack.stack_end == stack_end && stack.gc_epoch == t_locals.gc_epoch && stack.walk_epoch == CodeAndHeapEpoch();
    left_ = valid ? stack.remembered : 0;
  }
  uint32_t count() const { return left_; }

  // True when all frames from here outwards are the remembered ones: then count() of them.
  bool Meet(const WalkRegisters& registers) {
    while (left_ > 0 && stack_.frames[left_ - 1].sp < registers.sp) --left_;
    if (left_ == 0) return false;
    const WalkedFrame& known = stack_.frames[left_ - 1];
    if (known.sp != registers.sp || known.pc != registers.pc || known.fp != registers.fp) return false;
    if (verified_) return true;
    verified_ = true;
    const uint32_t unchanged = CountUnchanged(known.slots_end);
    if (unchanged == known.slots_end) return true;
    while (left_ > 0 && stack_.frames[left_ - 1].slots_end > unchanged) --left_;
    return false;
  }

 private:
  // From the outermost slot inwards, up to the first that changed. The loads do not wait for each other, as a walk's
  // do.
  uint32_t CountUnchanged(uint32_t count) const {
    const StackSlot* slots = stack_.slots;
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
      if ((slots[i].Changed() | slots[i + 1].Changed() | slots[i + 2].Changed() | slots[i + 3].Changed()) != 0) break;
    }
    while (i < count && slots[i].Changed() == 0) ++i;
    return i;
  }

  const WalkedStack& stack_;
  uint32_t left_;  // remembered frames not passed yet
  bool verified_ = false;
};

uint64_t Load(uint64_t address) { return *reinterpret_cast<const uint64_t*>(address); }

enum class NativeStep : uint8_t { kStepped, kEnd, kFailed };

bool Advance(WalkRegisters* registers, const StackBounds& bounds, uint64_t cfa, uint64_t fp, SlotLog* log) {
  if (cfa <= registers->sp || (cfa & 7) != 0 || !bounds.Contains(cfa - 8, 8)) return false;
  *registers = {log->Read(cfa - 8), cfa, fp};
  return true;
}

NativeStep StepByRule(UnwindRule rule, WalkRegisters* registers, const StackBounds& bounds, SlotLog* log) {
  const uint64_t cfa = (rule.from_rbp() ? registers->fp : registers->sp) + static_cast<uint64_t>(rule.cfa_offset());
  uint64_t fp = registers->fp;
  if (rule.rbp_slot() != 0) {
    const uint64_t slot = cfa + static_cast<uint64_t>(rule.rbp_slot());
    if ((slot & 7) != 0 || !bounds.Contains(slot, 8)) return NativeStep::kFailed;
    fp = log->Read(slot);
  }
  return Advance(registers, bounds, cfa, fp, log) ? NativeStep::kStepped : NativeStep::kFailed;
}

// What runs before the program: constructors, called from the loader's start, which has no unwind table.
bool IsInLoader(uint64_t return_address) {
  static const uint64_t base = getauxval(AT_BASE);
  const ModuleInfo* module = FindModule(return_address - 1);
  return module != nullptr && base != 0 && module->start <= base && base < module->end;
}

NativeStep StepByFramePointer(WalkRegisters* registers, const StackBounds& bounds, SlotLog* log) {
  const uint64_t fp = registers->fp;
  // The ABI's mark of the outermost frame. Elsewhere code without unwind tables may have left anything in rbp.
  if (fp == 0) return IsInLoader(registers->pc) ? NativeStep::kEnd : NativeStep::kFailed;
  if ((fp & 7) != 0 || fp < registers->sp || !bounds.Contains(fp, 16)) return NativeStep::kFailed;
  return Advance(registers, bounds, fp + 16, log->Read(fp), log) ? NativeStep::kStepped : NativeStep::kFailed;
}

// The kernel pushed a ucontext_t right where sp points once the handler's return address is popped (Linux,
// arch/x86/kernel/signal.c, rt_sigframe).
NativeStep StepSignalFrame(WalkRegisters* registers, StackBounds* bounds) {
  if (!bounds->Contains(registers->sp, sizeof(ucontext_t))) return NativeStep::kFailed;
  const ucontext_t* context = reinterpret_cast<const ucontext_t*>(registers->sp);
  const greg_t* saved = context->uc_mcontext.gregs;
  WalkRegisters interrupted = {static_cast<uint64_t>(saved[REG_RIP]) + 1, static_cast<uint64_t>(saved[REG_RSP]),
                               static_cast<uint64_t>(saved[REG_RBP])};
  if (!bounds->Contains(interrupted.sp, 8)) {  // an alternate signal stack
    if (interrupted.sp < bounds->own_low || interrupted.sp >= bounds->own_high) return NativeStep::kFailed;
    bounds->high = bounds->own_high;
  }
  *registers = interrupted;
  bounds->low = interrupted.sp;
  return NativeStep::kStepped;
}

NativeStep StepNative(UnwindRule rule, WalkRegisters* registers, StackBounds* bounds, SlotLog* log) {
  switch (rule.kind()) {
    case RuleKind::kFrame:
      return StepByRule(rule, registers, *bounds, log);
    case RuleKind::kSignal:
      log->NotRepeatable();
      return StepSignalFrame(registers, bounds);
    case RuleKind::kEnd:
      return NativeStep::kEnd;
    case RuleKind::kFramePointer:
      return StepByFramePointer(registers, *bounds, log);
    case RuleKind::kComplex: {
      log->NotRepeatable();
      const uint64_t sp = registers->sp;
      if (!g_rules.StepForReal(registers) || registers->sp <= sp || !bounds->Contains(registers->sp, 8))
        return NativeStep::kFailed;
      return NativeStep::kStepped;
    }
    case RuleKind::kNone:
    case RuleKind::kUnknownCode:
    case RuleKind::kV8:
      break;
  }
  return NativeStep::kFailed;
}

// A pc that no module and no V8 range holds: something was mapped since. Asked at most once per page and 100 ms, but
// again when code went away: a library is often put where the last one was.
bool LookAgain(uint64_t pc) {
  struct Asked {
    uint64_t page;
    uint64_t until_ns;
    uint32_t epoch;
  };
  static Asked asked[64];
  Asked& slot = asked[(pc >> 12) % 64];
  constexpr uint64_t kRetryNs = 100'000'000;
  const uint64_t now = CoarseMonotonicNanoseconds();
  const uint32_t epoch = __atomic_load_n(&g_epoch, __ATOMIC_ACQUIRE);
  if (__atomic_load_n(&slot.page, __ATOMIC_RELAXED) == pc >> 12 &&
      __atomic_load_n(&slot.epoch, __ATOMIC_RELAXED) == epoch &&
      now < __atomic_load_n(&slot.until_ns, __ATOMIC_RELAXED))
    return false;
  __atomic_store_n(&slot.page, pc >> 12, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.epoch, epoch, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.until_ns, now + kRetryNs, __ATOMIC_RELAXED);
  if (RefreshModules()) ForgetUnwindRules();
  return true;
}

UnwindRule RuleFor(uint64_t return_address) {
  UnwindRule rule = g_rules.Derive(return_address);
  if (rule.kind() == RuleKind::kUnknownCode && LookAgain(return_address - 1)) rule = g_rules.Derive(return_address);
  return rule;
}

// The rule of a pc not seen before. Above a frame of V8 lies one of V8's or of its module's; a word there that is no
// return address (see WalkInner) is no reason to look for new libraries.
UnwindRule FindRule(uint64_t return_address, bool called_v8) {
  if (g_has_v8) {
    const uint64_t pc = return_address - 1;
    const v8::CodeKind code = v8::FindCode(pc, FindModule(pc) != nullptr, called_v8);
    if (code != v8::CodeKind::kNotV8) {
      const UnwindRule rule = UnwindRule::V8(code == v8::CodeKind::kBuiltins);
      g_rules.Remember(return_address, rule);
      return rule;
    }
  }
  return called_v8 ? g_rules.Derive(return_address) : RuleFor(return_address);
}

enum class Ending : uint8_t { kOutermost, kStopped, kRemembered };

// From the first frame outside the shim outwards, into stack->inner.
Ending WalkInner(WalkRegisters registers, StackBounds bounds, RememberedFrames* remembered, FrameCollector* collector,
                 SlotLog* log) {
  WalkRegisters v8_frame = {};  // the last one, before it was left
  bool jumped_to = false, called_v8 = false;
  for (uint32_t steps = 0; registers.pc != 0; ++steps) {
    if (steps == kMaxFramesVisited) return Ending::kStopped;
    if (remembered->Meet(registers) && collector->count() + remembered->count() <= kMaxDepth &&
        !collector->truncated()) {
      return Ending::kRemembered;
    }
    UnwindRule rule = g_rules.Find(registers.pc);
    if (__builtin_expect(rule.kind() == RuleKind::kNone, 0)) rule = FindRule(registers.pc, called_v8);
    if (rule.kind() == RuleKind::kUnknownCode) {
      // A builtin that goes on with a frame in another tier is jumped to, not called: above its saved rbp lies no
      // return address. The frame that it works on is the next one.
      if (v8_frame.pc != 0 && registers.fp > v8_frame.fp && !jumped_to) {
        registers.pc = v8_frame.pc;
        jumped_to = true;
        called_v8 = false;
        log->NotRepeatable();
        continue;
      }
      collector->Add(Marker(MarkerId::kUnknownCode));
      return Ending::kStopped;
    }
    WalkedFrame& frame = *collector->Next();
    frame.pc = registers.pc;
    frame.sp = registers.sp;
    frame.fp = registers.fp;
    NativeStep step = NativeStep::kStepped;
    called_v8 = rule.kind() == RuleKind::kV8;
    if (called_v8) {
      v8_frame = registers;
      const auto code = rule.in_builtins() ? v8::CodeKind::kBuiltins : v8::CodeKind::kJit;
      if (v8::StepV8Frame(code, &registers, bounds, log, &frame) == v8::StepResult::kStop) step = NativeStep::kFailed;
    } else {
      frame.key_a = registers.pc;
      frame.key_b = 0;
      frame.type = WalkedType::kNative;
      step = StepNative(rule, &registers, &bounds, log);
    }
    frame.repeatable = log->TakeRepeatable() && step != NativeStep::kFailed;
    frame.slots_end = log->count();
    if (step == NativeStep::kEnd) return Ending::kOutermost;
    if (step == NativeStep::kFailed) {
      if (frame.type != WalkedType::kMarker) collector->Add(Marker(MarkerId::kUnwindStopped));
      return Ending::kStopped;
    }
  }
  return Ending::kOutermost;
}

// Puts the frames of this walk inside of the first `outer` ones of the last.
void Compose(uint32_t outer, const FrameCollector& collector, WalkedStack* stack) {
  uint32_t depth = outer;
  uint32_t slot = outer > 0 ? stack->frames[outer - 1].slots_end : 0;
  uint64_t hash = outer > 0 ? stack->frames[outer - 1].hash : kHashSeed;
  bool repeatable = !collector.truncated();
  uint32_t remembered = outer;
  for (uint32_t i = collector.count(); i-- > 0;) {
    WalkedFrame& frame = stack->frames[depth++];
    frame = stack->inner[i];
    hash = HashOf(hash, frame);
    frame.hash = hash;
    frame.node = recording::kNoIndex;
    if (!repeatable) continue;
    const uint32_t first = i > 0 ? stack->inner[i - 1].slots_end : 0;
    repeatable = frame.repeatable && slot + frame.slots_end - first <= kMaxSlots;
    if (!repeatable) continue;
    for (uint32_t from = first; from < frame.slots_end; ++from) stack->slots[slot++] = stack->inner_slots[from];
    frame.slots_end = slot;
    remembered = depth;
  }
  stack->depth = depth;
  stack->hash = hash ^ (hash >> 29) * 0x94d049bb133111ebull;
  stack->truncated = collector.truncated();
  stack->remembered = remembered;
}

}  // namespace

bool StartStackWalk(bool has_v8) {
  g_has_v8 = has_v8;
  if (has_v8) v8::CodeMemoryUnseen();
  RefreshModules();
  return g_rules.Start();
}

void ForgetUnwindRules() {
  g_rules.Flush();
  __atomic_add_fetch(&g_epoch, 1u, __ATOMIC_RELEASE);
}

uint64_t WalkEpoch() { return static_cast<uint64_t>(CodeAndHeapEpoch()) << 32 | t_locals.gc_epoch; }

WalkRegisters FindCaller(uint64_t frame_address, const StackBounds& bounds) {
  WalkRegisters caller = {Load(frame_address + 8), frame_address + 16, Load(frame_address)};
  for (int frames = 0; frames < 16 && InShim(caller.pc); ++frames) {
    const uint64_t fp = caller.fp;
    if ((fp & 7) != 0 || fp < caller.sp || !bounds.Contains(fp, 16)) return {};
    caller = {Load(fp + 8), fp + 16, Load(fp)};
  }
  return caller;
}

void WalkStack(const WalkRegisters& caller, const StackBounds& bounds, WalkedStack* stack) {
  const uint32_t epoch = CodeAndHeapEpoch();
  RememberedFrames remembered(*stack, bounds.high);
  FrameCollector collector(stack->inner);
  SlotLog log(stack->inner_slots, kMaxSlots);
  const Ending ending = caller.pc != 0 ? WalkInner(caller, bounds, &remembered, &collector, &log) : Ending::kStopped;
  collector.Finish();
  Compose(ending == Ending::kRemembered ? remembered.count() : 0, collector, stack);
  if (ending != Ending::kRemembered) stack->incomplete = ending == Ending::kStopped;
  stack->walk_epoch = epoch;
  stack->gc_epoch = t_locals.gc_epoch;
  stack->stack_end = bounds.high;
}

__attribute__((noinline)) void WalkStack(StackBounds bounds, WalkedStack* stack) {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  bounds.low = here;
  WalkStack(FindCaller(here, bounds), bounds, stack);
}

StackBounds FindMappingAround(uint64_t address) {
  MappedText maps = ReadWholeFile("/proc/thread-self/maps");
  StackBounds found = {0, 0};
  for (const char* p = maps.data; p != nullptr && *p != '\0';) {
    const uint64_t start = ParseHex(&p);
    if (*p == '-') ++p;
    const uint64_t end = ParseHex(&p);
    if (address >= start && address < end) {
      found = {start, end};
      break;
    }
    p = strchr(p, '\n');
    if (p != nullptr) ++p;
  }
  UnmapMemory(maps.data, maps.mapped);
  return found;
}

uint64_t FindStackEnd(uint64_t address) { return FindMappingAround(address).high; }

}  // namespace nodeleak::preload
