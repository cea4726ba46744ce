// Runs inside node, on the thread it belongs to, possibly inside malloc or a collection. Never allocates, waits or
// throws.
//
// Whole stacks that a thread had before, found without a walk: by the registers of the first frame outside the shim,
// then proved by comparing every word that the walk had read (docs/decisions/0011). The loads of the comparison do not
// wait for each other, as those of a walk do.
#pragma once

#include <stdint.h>

#include "preload/unwind/stack_walk.h"

namespace nodeleak::preload {

// Zeroed memory at first. Of the 512 KiB only the entries that were used take memory.
class KnownStacks {
 public:
  // What Remember was told of this very stack; kNoIndex (recording/layout.h): it must be walked.
  uint32_t Find(const WalkRegisters& caller, uint64_t stack_end);
  // `walked` was walked from `caller` and is this Stack of the recording. What does not fit, or was decided by more
  // than registers and words, is not remembered.
  void Remember(const WalkRegisters& caller, const WalkedStack& walked, uint32_t stack);
  // Another thread, or another recording.
  void Forget() { ++owner_; }

 private:
  static constexpr uint32_t kSetBits = 6, kWays = 4;
  static constexpr uint32_t kSlots = 124;

  // In the bits of an address that are 0.
  static constexpr uint64_t kOneBit = 1;    // only the lowest bit of the word counts
  static constexpr uint64_t kFunction = 2;  // a function: another closure of it will do
  static constexpr uint64_t kAddress = ~uint64_t{7};

  struct Word {  // of the stack, or the map of a function in V8's heap
    uint64_t address_and_flags;
    uint64_t value;
    uint64_t Changed() const;
  };
  struct Entry {
    WalkRegisters caller;
    uint64_t stack_end;
    uint64_t epoch;  // WalkEpoch()
    uint32_t owner;
    uint32_t stack;
    uint32_t words;
    Word word[kSlots];  // innermost first: two stacks that begin alike differ near the beginning
  };
  struct Set {
    uint32_t last_used, next;  // ways
    Entry ways[kWays];
  };

  Set& SetOf(const WalkRegisters& caller);
  static bool IsSame(Entry& entry);
  static bool IsSame(Entry& entry, uint32_t from);

  uint32_t owner_;
  Set sets_[1u << kSetBits];
};

}  // namespace nodeleak::preload
