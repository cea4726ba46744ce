// Both worlds. Which pages of the anonymous areas are in memory: one bit a page from /proc/PID/pagemap, and only where
// smaps does not say it already (nothing, or everything).
#pragma once

#include "memory/areas.h"

namespace nodeleak::memory {

class Residency {
 public:
  explicit Residency(const System& system) : bits_(system) {}

  // Fills in Area::bitmap. Reads at most kMostPages; beyond, and where pagemap is not to be had (gVisor, another
  // user's process), an area counts as touched evenly: approximate().
  void Read(const System& system, PageArray<Area>* areas);
  bool approximate() const { return approximate_; }

  // Resident bytes of [start, end), which lies in the area.
  uint64_t Bytes(const Area& area, uint64_t start, uint64_t end) const;
  // Whether the page of an address may be in memory, or swapped out.
  bool HasPage(const Area& area, uint64_t address) const {
    return area.bitmap == kEvenly || area.swapped != 0 || Bytes(area, address, address + 1) != 0;
  }

 private:
  static constexpr uint64_t kMostPages = 1ull << 24;  // 64 GiB of partly touched areas: 2 MiB of bits
  static constexpr uint64_t kNone = ~0ull, kAll = ~0ull - 1, kEvenly = ~0ull - 2;

  // Present pages count; with `owned_only` those that are really ours: a page that was only ever read is the shared
  // zero page, present but no memory, and smaps does not count it. False: pagemap cannot be read.
  bool ReadBits(ProcFile* pagemap, const Area& area, uint64_t* buffer, bool owned_only, uint64_t* counted);
  uint64_t CountPages(uint64_t first_bit, uint64_t end_bit) const;

  PageArray<uint64_t> bits_;
  uint64_t used_words_ = 0;
  bool approximate_ = false;
};

}  // namespace nodeleak::memory
