// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What a stack walk yields: raw frames. A raw frame is a key that is cheap to take and to hash; what it means to a
// person is resolved from the still-live stack when a stack is seen for the first time.
#pragma once

#include <stdint.h>

namespace nodeleak::preload {

enum class WalkedType : uint8_t {
  kNative,   // key_a = return address, key_b = 0
  kV8,       // key as StepV8Frame made it; one raw frame can be several frames to a person (inlining), or none
  kMarker,   // key_a = recording::MarkerId, key_b = detail
  kSkipped,  // V8's own business: walked through, nothing to show
};

// key_a and key_b identify the frame across walks and across moving collections; pc, sp and fp are valid during this
// walk only. The second half is what the next walk and the stack table remember of it.
struct WalkedFrame {
  uint64_t key_a;
  uint64_t key_b;
  uint64_t pc;  // return address (or the current pc for the innermost)
  uint64_t sp;
  uint64_t fp;    // kV8: rbp of the frame
  uint64_t hash;  // of the keys of this frame and all outside of it
  uint32_t slots_end;
  uint32_t node;  // StackTable's: the StackNode of this frame and all outside of it; recording::kNoIndex: not known
  uint16_t shown_depth;  // frames of a person up to that node
  WalkedType type;
  uint8_t v8_kind;  // private to preload/v8
  bool repeatable;  // nothing but its registers and its slots decided what it is and where it leads
};

// The registers a walk carries from frame to frame.
struct WalkRegisters {
  uint64_t pc;
  uint64_t sp;
  uint64_t fp;  // rbp
};

// Stack memory of the current thread that may be read: [low, high).
struct StackBounds {
  uint64_t low;
  uint64_t high;
  // On another stack than the thread's own: the own one, where a signal handler's walk goes on. 0: none.
  uint64_t own_low;
  uint64_t own_high;
  bool Contains(uint64_t address, uint64_t bytes) const {
    return address >= low && address <= high && high - address >= bytes;
  }
};

// A word of the stack that a walk looked at, and what it saw there in the bits that count.
struct StackSlot {
  uint64_t address;
  uint64_t value;
  uint64_t mask;
  uint64_t Changed() const { return (*reinterpret_cast<const uint64_t*>(address) ^ value) & mask; }
};

// Reads the stack for a walk and keeps what was read.
class SlotLog {
 public:
  SlotLog(StackSlot* slots, uint32_t capacity) : slots_(slots), capacity_(capacity) {}
  uint64_t Read(uint64_t address, uint64_t mask = ~uint64_t{0}) {
    const uint64_t value = *reinterpret_cast<const uint64_t*>(address);
    Keep(address, value, mask);
    return value;
  }
  void Keep(uint64_t address, uint64_t value, uint64_t mask) {
    if (__builtin_expect(count_ == capacity_, 0)) {
      repeatable_ = false;
    } else {
      slots_[count_++] = {address, value, mask};
    }
  }
  uint32_t count() const { return count_; }

  // Something else than the stack decided about the frame that is being read.
  void NotRepeatable() { repeatable_ = false; }
  // Whether it did not, since the last call.
  bool TakeRepeatable() {
    const bool repeatable = repeatable_;
    repeatable_ = count_ < capacity_;
    return repeatable;
  }

 private:
  StackSlot* slots_;
  uint32_t capacity_;
  uint32_t count_ = 0;
  bool repeatable_ = true;
};

}  // namespace nodeleak::preload
