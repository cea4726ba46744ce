// Runs inside node, on the thread it belongs to, possibly inside malloc or a collection. Never allocates, waits or
// throws.
//
// Whole stacks that a thread had before, found without a walk: by the registers of the first frame outside the shim,
// then proved by comparing every word that the walk had read (docs/decisions/0011). The loads of the comparison do not
// wait for each other, as those of a walk do.
//
// A stack's words are kept in parts, from the outermost word inwards. Stacks with equal outer parts share them: a
// server's hundreds of stacks have a few event loops and handlers in common, and what all have in common stays in the
// processor's nearest cache.
#pragma once

#include <stdint.h>

#include "preload/unwind/stack_walk.h"

namespace nodeleak::preload {

// Zeroed memory at first. Of the 320 KiB only what was used takes memory.
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
  static constexpr uint32_t kSetBits = 7, kWays = 4;
  static constexpr uint32_t kPartSetBits = 8, kPartWays = 4;
  static constexpr uint32_t kPartWords = 15;
  static constexpr uint32_t kMostParts = 14;

  struct Word {  // of the stack, or the map of a function in V8's heap
    uint64_t address;
    uint64_t value;
    uint64_t Difference() const;
  };
  struct Words {
    uint16_t functions;  // bit i: word i is a function, whose map is the next word: another closure of it will do
    uint16_t whole;      // the first so many words count whole; a multiple of 3
    uint32_t low_bits;   // of the last so many only the lowest bit
    Word word[kPartWords];
  };
  struct alignas(64) Part {
    uint32_t hash;   // of the words as they were put here
    uint16_t stamp;  // counts up when they become others
    Words words;
  };
  static_assert(sizeof(Part) == 256);
  struct PartRef {
    uint16_t part;
    uint16_t stamp;
  };
  struct alignas(64) Entry {
    WalkRegisters caller;
    uint64_t stack_end;
    uint64_t epoch;  // WalkEpoch()
    uint32_t owner;
    uint32_t stack;
    uint32_t parts;
    PartRef part[kMostParts];  // outermost first
  };
  static_assert(sizeof(Entry) == 128);

  // What was never written is not looked at: reading it would bring in a page that the first write has to replace.
  struct Ways {
    uint8_t filled, next, last_used;
  };

  static uint32_t NextWay(Ways* ways, uint32_t count);
  static uint32_t SetOf(const WalkRegisters& caller);
  bool IsSame(const Entry& entry);
  static bool IsSame(Words& words);
  static bool HasSameFunctions(Words& words);
  static uint32_t TakeWords(const StackSlot* slots, uint32_t count, Words* words);
  PartRef Keep(const Words& words);

  uint32_t owner_;
  Ways ways_[1u << kSetBits];
  Ways part_ways_[1u << kPartSetBits];
  Entry entries_[1u << kSetBits][kWays];
  Part parts_[1u << kPartSetBits][kPartWays];
};

}  // namespace nodeleak::preload
