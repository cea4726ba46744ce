// Runs inside node, under the stack table's lock. Never allocates, waits or throws.
//
// What was read of an object, by its address, until the next collection of the calling thread's isolate begins: until
// then nothing moves, and no other object can be where it is. Only for what a program cannot change of the object.
#pragma once

#include <stdint.h>
#include <string.h>

#include "preload/base/guard.h"

namespace nodeleak::preload::v8 {

template <typename Fact, uint32_t kSlotBits>
class FactsUntilCollection {
 public:
  // nullptr: not known, or nothing may be kept, as a collection may be moving objects.
  const Fact* Find(uint64_t object) {
    if (!IsCurrent()) return nullptr;
    const Entry& entry = entries_[SlotOf(object)];
    return entry.object == object ? &entry.fact : nullptr;
  }
  void Remember(uint64_t object, const Fact& fact) {
    if (!t_locals.watches_gc) return;
    if (!IsCurrent()) {
      memset(static_cast<void*>(entries_), 0, sizeof entries_);
      thread_ = &t_locals;
      gc_epoch_ = t_locals.gc_epoch;
    }
    entries_[SlotOf(object)] = {object, fact};
  }

 private:
  struct Entry {
    uint64_t object;
    Fact fact;
  };
  bool IsCurrent() const { return t_locals.watches_gc && thread_ == &t_locals && gc_epoch_ == t_locals.gc_epoch; }
  static uint32_t SlotOf(uint64_t object) {
    return static_cast<uint32_t>((object * 0x9e3779b97f4a7c15ull) >> (64 - kSlotBits));
  }

  const ThreadLocals* thread_ = nullptr;
  uint32_t gc_epoch_ = 0;
  Entry entries_[1u << kSlotBits] = {};
};

}  // namespace nodeleak::preload::v8
