// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// What a stack walk yields: raw frames. A raw frame is a key that is cheap to take and to hash; what it means to a
// person is resolved from the still-live stack when a stack is seen for the first time.
#pragma once

#include <stdint.h>

namespace nodeleak::preload {

enum class WalkedType : uint8_t {
  kNative,  // key_a = return address, key_b = 0
  kV8,      // key as ReadV8Frame made it; one raw frame can be several frames to a person (inlining), or none
  kMarker,  // key_a = recording::MarkerId, key_b = detail
};

// key_a and key_b identify the frame across walks and across moving collections; pc and fp are valid during this walk
// only.
struct WalkedFrame {
  uint64_t key_a;
  uint64_t key_b;
  uint64_t pc;  // return address (or the current pc for the innermost)
  uint64_t fp;  // kV8: rbp of the frame
  WalkedType type;
  uint8_t v8_kind;  // private to preload/v8
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
  bool Contains(uint64_t address, uint64_t bytes) const {
    return address >= low && address <= high && high - address >= bytes;
  }
};

}  // namespace nodeleak::preload
