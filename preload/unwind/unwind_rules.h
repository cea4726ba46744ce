// Runs inside node, on any thread, possibly inside malloc. Never throws; libunwind is called only for a return address
// not seen before, if at all.
//
// How to leave a native frame, as one 64-bit word per return address. Ordinary rules are read from the unwind tables
// (call_frames.h), others derived by libunwind: it steps a cursor once over synthetic registers and memory, and what it
// computed is read off (shared facts: unwind.md). A hit costs one load and a compare.
#pragma once

#include <stdint.h>

#include "preload/unwind/walked_frame.h"

namespace nodeleak::preload {

enum class RuleKind : uint32_t {
  kNone = 0,
  kFrame = 1,         // CFA = register + offset; return address at CFA-8; rbp saved or not
  kSignal = 2,        // the kernel's signal frame: registers in a ucontext at sp
  kEnd = 3,           // outermost frame: _start, a thread's start
  kFramePointer = 4,  // no unwind information: the rbp chain
  kComplex = 5,       // a rule of another form: libunwind steps with the real registers each time
  kUnknownCode = 6,   // in no module
  kV8 = 7,            // V8's code: by V8's frame layout
};

// 63       30 29  27  26  25            12 11          0
// |   tag    | kind | R | cfa offset / 8  | rbp slot/8 |    R: 1 CFA from rbp, 0 from rsp. rbp slot relative to the
// CFA; 0: rbp unchanged
class UnwindRule {
 public:
  static constexpr uint32_t kBits = 30;

  constexpr UnwindRule() = default;
  constexpr explicit UnwindRule(uint32_t bits) : bits_(bits) {}
  static constexpr UnwindRule Of(RuleKind kind) { return UnwindRule(static_cast<uint32_t>(kind) << 27); }
  static constexpr UnwindRule V8(bool in_builtins) {
    return UnwindRule(static_cast<uint32_t>(RuleKind::kV8) << 27 | (in_builtins ? 1u : 0u));
  }
  // False when the numbers do not fit or are no multiples of 8.
  static bool Encode(bool from_rbp, int64_t cfa_offset, int64_t rbp_slot, UnwindRule* rule);

  RuleKind kind() const { return static_cast<RuleKind>(bits_ >> 27); }
  bool from_rbp() const { return (bits_ >> 26 & 1) != 0; }
  int64_t cfa_offset() const { return static_cast<int64_t>(bits_ >> 12 & 0x3fff) * 8; }
  int64_t rbp_slot() const { return static_cast<int64_t>(static_cast<int32_t>(bits_ << 20) >> 20) * 8; }
  bool in_builtins() const { return (bits_ & 1) != 0; }  // of kV8
  uint32_t bits() const { return bits_; }

 private:
  uint32_t bits_ = 0;
};

// libunwind's answer, for what RuleFromTables cannot say. Rules must have been started.
UnwindRule RuleByStepping(uint64_t return_address);

class RuleCache {
 public:
  bool Start();  // maps the table and makes libunwind's address space
  // The rule for a return address; kNone: not known yet. One multiplication and, nearly always, one load.
  UnwindRule Find(uint64_t return_address) const {
    const uint64_t mixed = Mix(return_address);
    const uint64_t* slot = Home(mixed);
    uint64_t word = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if (__builtin_expect(word >> UnwindRule::kBits == Tag(mixed), 1)) {
      return UnwindRule(static_cast<uint32_t>(word) & kRuleMask);
    }
    return FindInLine(slot, Tag(mixed));
  }
  // Reads the tables or asks libunwind (about 8 us), and remembers.
  UnwindRule Derive(uint64_t return_address);
  void Remember(uint64_t return_address, UnwindRule rule);
  void Flush();  // a module was unloaded

  // kComplex: one step with the real registers. False: libunwind cannot either.
  bool StepForReal(WalkRegisters* registers);

 private:
  static constexpr uint32_t kRuleMask = (1u << UnwindRule::kBits) - 1;
  static constexpr uint32_t kSlotBits = 16;
  static constexpr uint32_t kWayBits = 3;  // a cache line of 8 slots; 512 KiB in all, touched as used
  static constexpr uint32_t kAddressBits = 47;
  static constexpr uint64_t kAddressMask = (1ull << kAddressBits) - 1;
  static constexpr uint32_t kTagBits = kAddressBits - kSlotBits + kWayBits;
  static_assert(kTagBits + UnwindRule::kBits == 64, "line number and tag must name the address exactly");

  // Multiplication by an odd number modulo 2^47: one to one on user addresses. The upper bits choose the slot; those
  // below the line number are the tag.
  static uint64_t Mix(uint64_t address) { return address * 0x4f1bbcdcbfa5ull & kAddressMask; }
  static uint64_t Tag(uint64_t mixed) { return mixed & ((1ull << kTagBits) - 1); }
  uint64_t* Home(uint64_t mixed) const { return slots_ + (mixed >> (kAddressBits - kSlotBits)); }
  uint64_t* LineOf(const uint64_t* slot) const {
    return slots_ + (static_cast<uint64_t>(slot - slots_) & ~((1ull << kWayBits) - 1));
  }
  UnwindRule FindInLine(const uint64_t* home, uint64_t tag) const {
    const uint64_t* line = LineOf(home);
    for (uint32_t way = 0; way < 1u << kWayBits; ++way) {
      const uint64_t word = __atomic_load_n(&line[way], __ATOMIC_RELAXED);
      if (word >> UnwindRule::kBits == tag) return UnwindRule(static_cast<uint32_t>(word) & kRuleMask);
    }
    return UnwindRule();
  }

  uint64_t* slots_ = nullptr;
};

}  // namespace nodeleak::preload
