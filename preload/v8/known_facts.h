// Runs inside node, on any thread. Never allocates, waits or throws.
//
// What was read of an object, by its address, until the next collection of the calling thread's isolate begins: until
// then nothing moves, and no other object can be where it is. Only for what a program cannot change of the object.
// Threads share a few tables; who finds its own in use does without.
#pragma once

#include <stdint.h>
#include <string.h>

#include "preload/base/guard.h"

namespace nodeleak::preload::v8 {

template <typename Fact, uint32_t kSlotBits>
class FactsUntilCollection {
 public:
  // False: not known, or nothing may be kept, as a collection may be moving objects.
  bool Find(uint64_t object, Fact* fact) {
    if (!t_locals.watches_gc) return false;
    Table& table = OwnTable();
    if (!table.Take()) return false;
    const Entry& entry = table.entries[SlotOf(object)];
    const bool found = table.IsCurrent() && entry.object == object;
    if (found) *fact = entry.fact;
    table.Leave();
    return found;
  }
  void Remember(uint64_t object, const Fact& fact) {
    if (!t_locals.watches_gc) return;
    Table& table = OwnTable();
    if (!table.Take()) return;
    if (!table.IsCurrent()) {
      memset(static_cast<void*>(table.entries), 0, sizeof table.entries);
      table.thread = &t_locals;
      table.gc_epoch = t_locals.gc_epoch;
    }
    table.entries[SlotOf(object)] = {object, fact};
    table.Leave();
  }

 private:
  struct Entry {
    uint64_t object;
    Fact fact;
  };
  struct Table {
    bool taken;
    uint32_t gc_epoch;
    const ThreadLocals* thread;
    Entry entries[1u << kSlotBits];
    bool Take() { return !__atomic_exchange_n(&taken, true, __ATOMIC_ACQUIRE); }
    void Leave() { __atomic_store_n(&taken, false, __ATOMIC_RELEASE); }
    bool IsCurrent() const { return thread == &t_locals && gc_epoch == t_locals.gc_epoch; }
  };
  static constexpr uint32_t kTablesLog2 = 3;

  static uint32_t SlotOf(uint64_t object) {
    return static_cast<uint32_t>((object * 0x9e3779b97f4a7c15ull) >> (64 - kSlotBits));
  }
  Table& OwnTable() {
    return tables_[(reinterpret_cast<uint64_t>(&t_locals) * 0x9e3779b97f4a7c15ull) >> (64 - kTablesLog2)];
  }

  Table tables_[1u << kTablesLog2] = {};
};

}  // namespace nodeleak::preload::v8
