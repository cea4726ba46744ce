// Runs inside node. Never allocates through a hooked allocator, never throws.
//
// An array beside the recording whose entries never move: parts that double, zeroed and touched a piece at a time. Grow
// is called under the lock of its owner; entries below what it was grown to may be used without.
#pragma once

#include <stdint.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

template <typename T>
class GrowingArray {
 public:
  // Room for `count` entries, up to some hundred more; false: no memory.
  bool Grow(uint32_t count) {
    while (ready_ < count) {
      const uint64_t at = uint64_t{ready_} + kFirst;
      const uint32_t part = Log2(at) - kFirstLog2;
      const uint64_t entries = uint64_t{kFirst} << part;
      if (parts_[part] == nullptr) parts_[part] = static_cast<T*>(MapMemory(entries * sizeof(T)));
      if (parts_[part] == nullptr) return false;
      // Reading untouched memory, as entries may be, would cost a second fault when they are written.
      char* piece = reinterpret_cast<char*>(&parts_[part][at - entries]);
      for (uint64_t byte = 0; byte < kPiece * sizeof(T); byte += kPageBytes)
        __atomic_store_n(piece + byte, char{0}, __ATOMIC_RELAXED);
      ready_ += kPiece;
    }
    return true;
  }
  T& operator[](uint32_t index) const {
    const uint64_t at = uint64_t{index} + kFirst;
    const uint32_t log2 = Log2(at);
    return parts_[log2 - kFirstLog2][at - (uint64_t{1} << log2)];
  }
  void Free() {
    for (uint32_t part = 0; part < kParts; ++part) {
      UnmapMemory(parts_[part], (uint64_t{kFirst} << part) * sizeof(T));
      parts_[part] = nullptr;
    }
    ready_ = 0;
  }

 private:
  static constexpr uint32_t kFirstLog2 = 12, kFirst = 1u << kFirstLog2, kPiece = kFirst, kParts = 33 - kFirstLog2;
  static constexpr uint32_t kPageBytes = 4096;
  static uint32_t Log2(uint64_t value) { return 63u - static_cast<uint32_t>(__builtin_clzll(value)); }

  T* parts_[kParts] = {};
  uint32_t ready_ = 0;
};

}  // namespace nodeleak::preload
