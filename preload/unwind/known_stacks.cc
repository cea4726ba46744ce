#include "preload/unwind/known_stacks.h"

#include "preload/v8/js_frames.h"
#include "recording/layout.h"

namespace nodeleak::preload {

// Words of frames that are no more are looked at, too: mapped, but poisoned where ASan watches.
__attribute__((no_sanitize("address"))) uint64_t KnownStacks::Word::Changed() const {
  const uint64_t mask = ((address_and_flags & kOneBit) - 1) | 1;
  return (*reinterpret_cast<const uint64_t*>(address_and_flags & kAddress) ^ value) & mask;
}

// From word `i` on, one by one. A closure made anew for each request is another object, but the same function.
__attribute__((no_sanitize("address"))) bool KnownStacks::IsSame(Entry& entry, uint32_t i) {
  for (; i < entry.words; ++i) {
    Word& word = entry.word[i];
    if (word.Changed() == 0) continue;
    if ((word.address_and_flags & kFunction) == 0) return false;
    const uint64_t function = *reinterpret_cast<const uint64_t*>(word.address_and_flags & kAddress);
    if (!v8::IsSameFunction(word.value, function)) return false;
    word.value = function;
    entry.word[i - 1].address_and_flags = function - 1;  // its map, which is the same
  }
  return true;
}

bool KnownStacks::IsSame(Entry& entry) {
  uint32_t i = 0;
  for (; i + 4 <= entry.words; i += 4) {
    const Word* word = &entry.word[i];
    if ((word[0].Changed() | word[1].Changed() | word[2].Changed() | word[3].Changed()) != 0) break;
  }
  return IsSame(entry, i);
}

KnownStacks::Set& KnownStacks::SetOf(const WalkRegisters& caller) {
  const uint64_t mixed = (caller.pc ^ caller.sp * 0xbf58476d1ce4e5b9ull ^ caller.fp << 20) * 0x9e3779b97f4a7c15ull;
  return sets_[mixed >> (64 - kSetBits)];
}

uint32_t KnownStacks::Find(const WalkRegisters& caller, uint64_t stack_end) {
  Set& set = SetOf(caller);
  const uint64_t epoch = WalkEpoch();
  for (uint32_t i = 0; i < kWays; ++i) {
    const uint32_t way = (set.last_used + i) % kWays;
    Entry& entry = set.ways[way];
    // The epoch first: words of V8's heap may be looked at only within it.
    if (entry.epoch != epoch || entry.owner != owner_ || entry.stack_end != stack_end || entry.caller.pc != caller.pc ||
        entry.caller.sp != caller.sp || entry.caller.fp != caller.fp || !IsSame(entry))
      continue;
    set.last_used = way;
    return entry.stack;
  }
  return recording::kNoIndex;
}

void KnownStacks::Remember(const WalkRegisters& caller, const WalkedStack& walked, uint32_t stack) {
  if (walked.depth == 0 || walked.remembered != walked.depth || walked.truncated || walked.incomplete) return;
  const uint32_t words = walked.frames[walked.depth - 1].slots_end;
  if (words > kSlots) return;
  Set& set = SetOf(caller);
  Entry& entry = set.ways[set.next++ % kWays];
  entry.caller = caller;
  entry.stack_end = walked.stack_end;
  entry.epoch = EpochOf(walked);
  entry.owner = owner_;
  entry.stack = stack;
  entry.words = words;
  for (uint32_t i = 0; i < words; ++i) {
    const StackSlot& slot = walked.slots[words - 1 - i];
    // js_frames.cc keeps the map of a function right after the function itself.
    const bool function = i > 0 && slot.value == (entry.word[i - 1].address_and_flags | 1) && (slot.value & 1) != 0;
    entry.word[i] = {slot.address | (slot.mask == 1 ? kOneBit : 0) | (function ? kFunction : 0), slot.value};
  }
}

}  // namespace nodeleak::preload
