#include "preload/unwind/known_stacks.h"

#include <string.h>

#include "preload/v8/js_frames.h"
#include "recording/layout.h"

namespace nodeleak::preload {

namespace {
constexpr uint64_t kZero = 0;  // never changes: fills up a row of words

uint32_t InThrees(uint32_t count) { return (count + 2) / 3 * 3; }
}  // namespace

// Words of frames that are no more are looked at, too: mapped, but poisoned where ASan watches.
__attribute__((no_sanitize("address"))) inline uint64_t KnownStacks::Word::Difference() const {
  return *reinterpret_cast<const uint64_t*>(address) ^ value;
}

// Where whole words have changed: a closure made anew for each request is another object, but the same function.
__attribute__((no_sanitize("address"))) bool KnownStacks::HasSameFunctions(Words& words) {
  for (uint32_t i = 0; i < words.whole; ++i) {
    Word& word = words.word[i];
    if (word.Difference() == 0) continue;
    if ((words.functions >> i & 1) == 0) return false;
    const uint64_t function = *reinterpret_cast<const uint64_t*>(word.address);
    if (!v8::IsSameFunction(word.value, function)) return false;
    word.value = function;
    words.word[i + 1].address = function - 1;  // its map, which is the same
  }
  return true;
}

bool KnownStacks::IsSame(Words& words) {
  uint64_t changed = 0;
  for (uint32_t i = kPartWords - words.low_bits; i < kPartWords; ++i) changed |= words.word[i].Difference();
  if ((changed & 1) != 0) return false;
  changed = 0;
  for (uint32_t i = 0; i < words.whole; i += 3) {
    const Word* word = &words.word[i];
    changed |= word[0].Difference() | word[1].Difference() | word[2].Difference();
  }
  return changed == 0 || HasSameFunctions(words);
}

// Innermost part first: two stacks that begin alike differ near the beginning.
bool KnownStacks::IsSame(const Entry& entry) {
  for (uint32_t i = entry.parts; i-- > 0;) {
    Part& part = parts_[entry.part[i].part / kPartWays][entry.part[i].part % kPartWays];
    if (part.stamp != entry.part[i].stamp || !IsSame(part.words)) return false;
  }
  return true;
}

uint32_t KnownStacks::Find(const WalkRegisters& caller, uint64_t stack_end) {
  const uint32_t set = SetOf(caller);
  const uint64_t epoch = WalkEpoch();
  Ways& ways = ways_[set];
  for (uint32_t i = 0; i < ways.filled; ++i) {
    const uint32_t way = (ways.last_used + i) % ways.filled;
    const Entry& entry = entries_[set][way];
    // The epoch first: words of V8's heap may be looked at only within it.
    if (entry.epoch != epoch || entry.owner != owner_ || entry.stack_end != stack_end || entry.caller.pc != caller.pc ||
        entry.caller.sp != caller.sp || entry.caller.fp != caller.fp || !IsSame(entry))
      continue;
    ways.last_used = static_cast<uint8_t>(way);
    return entry.stack;
  }
  return recording::kNoIndex;
}

uint32_t KnownStacks::NextWay(Ways* ways, uint32_t count) {
  if (ways->filled < count) return ways->filled++;
  ways->next = static_cast<uint8_t>((ways->next + 1u) % count);
  return ways->next;
}

uint32_t KnownStacks::SetOf(const WalkRegisters& caller) {
  const uint64_t mixed = (caller.pc ^ caller.sp * 0xbf58476d1ce4e5b9ull ^ caller.fp << 20) * 0x9e3779b97f4a7c15ull;
  return static_cast<uint32_t>(mixed >> (64 - kSetBits));
}

// As many slots as go into a part; a function and its map stay together.
uint32_t KnownStacks::TakeWords(const StackSlot* slots, uint32_t count, Words* words) {
  *words = {};
  uint32_t taken = 0, whole = 0;
  const auto fits = [&](uint32_t more) { return InThrees(whole + more) + words->low_bits <= kPartWords; };
  for (; taken < count; ++taken) {
    const StackSlot& slot = slots[taken];
    if (slot.mask == 1) {
      if (InThrees(whole) + words->low_bits == kPartWords) break;
      words->word[kPartWords - ++words->low_bits] = {slot.address, slot.value};
      continue;
    }
    // js_frames.cc keeps the map of a function right after the function itself.
    const bool function = taken + 1 < count && (slot.value & 1) != 0 && slot.value == (slots[taken + 1].address | 1);
    if (!fits(function ? 2 : 1)) break;
    words->functions = static_cast<uint16_t>(words->functions | (function ? 1u : 0u) << whole);
    words->word[whole++] = {slot.address, slot.value};
  }
  words->whole = static_cast<uint16_t>(InThrees(whole));
  for (; whole < kPartWords - words->low_bits; ++whole)
    words->word[whole] = {reinterpret_cast<uint64_t>(&kZero), kZero};
  return taken;
}

KnownStacks::PartRef KnownStacks::Keep(const Words& words) {
  uint64_t hash = words.whole;
  for (const Word& word : words.word) {
    hash = (hash ^ word.address ^ word.value << 17) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 32;
  }
  const uint64_t set = hash >> (64 - kPartSetBits);
  const uint32_t tag = static_cast<uint32_t>(hash);
  uint32_t way = 0;
  while (way < part_ways_[set].filled &&
         (parts_[set][way].hash != tag || memcmp(&parts_[set][way].words, &words, sizeof words) != 0))
    ++way;
  if (way == part_ways_[set].filled) {
    way = NextWay(&part_ways_[set], kPartWays);
    Part& part = parts_[set][way];
    part.hash = tag;
    part.words = words;
    if (++part.stamp == 0) Forget();  // stacks that had it long ago would take it for theirs
  }
  return {static_cast<uint16_t>(set * kPartWays + way), parts_[set][way].stamp};
}

void KnownStacks::Remember(const WalkRegisters& caller, const WalkedStack& walked, uint32_t stack) {
  if (walked.depth == 0 || walked.remembered != walked.depth || walked.truncated || walked.incomplete) return;
  const uint32_t words = walked.frames[walked.depth - 1].slots_end;
  if (words > kMostParts * kPartWords) return;
  PartRef parts[kMostParts];
  uint32_t count = 0;
  for (uint32_t taken = 0; taken < words; ++count) {
    if (count == kMostParts) return;
    Words part;
    taken += TakeWords(&walked.slots[taken], words - taken, &part);
    parts[count] = Keep(part);
  }
  const uint32_t set = SetOf(caller);
  Entry& entry = entries_[set][NextWay(&ways_[set], kWays)];
  entry.caller = caller;
  entry.stack_end = walked.stack_end;
  entry.epoch = EpochOf(walked);
  entry.owner = owner_;
  entry.stack = stack;
  entry.parts = count;
  memcpy(entry.part, parts, count * sizeof parts[0]);
}

}  // namespace nodeleak::preload
