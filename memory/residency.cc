#include "memory/residency.h"

namespace nodeleak::memory {
namespace {

constexpr uint64_t kBits = 64;
constexpr size_t kEntriesAtOnce = 8192;  // 64 KiB
// Documentation/admin-guide/mm/pagemap.rst
constexpr uint64_t kExclusive = 1ull << 56, kFileOrShared = 1ull << 61, kPresent = 1ull << 63;

uint64_t WordsOf(const Area& area) { return ((area.end - area.start) / kPage + kBits - 1) / kBits; }

// Low `count` bits, count below 64.
uint64_t LowBits(uint64_t count) { return (1ull << count) - 1; }

// What makes a present page memory. The huge zero page passes for one of a file (Linux 6.18), so in areas without a
// file only what is ours alone counts.
uint64_t OwnedBits(const Area& area) {
  return area.kind == AreaKind::kShared ? kExclusive | kFileOrShared : kExclusive;
}

}  // namespace

void Residency::Read(const System& system, PageArray<Area>* areas) {
  ProcFile pagemap(system, "pagemap");
  auto* buffer = static_cast<uint64_t*>(system.map(kEntriesAtOnce * sizeof(uint64_t)));
  for (Area& area : *areas) {
    area.bitmap = area.resident == 0 ? kNone : area.resident >= area.end - area.start ? kAll : kEvenly;
    if (area.bitmap != kEvenly || area.kind == AreaKind::kFile || area.kind == AreaKind::kKernel) continue;
    const uint64_t words = WordsOf(area);
    const bool possible = pagemap.valid() && buffer != nullptr && (used_words_ + words) * kBits <= kMostPages &&
                          bits_.Resize(used_words_ + words);
    uint64_t counted = 0;
    const bool read = possible && ReadBits(&pagemap, area, buffer, false, &counted);
    if (read && counted == 0) {  // given back, or unmapped, since smaps was read
      area.resident = 0;
      area.bitmap = kNone;
      continue;
    }
    if (counted > area.resident) ReadBits(&pagemap, area, buffer, true, &counted);
    if (!read || counted == 0) {
      approximate_ = true;
      continue;
    }
    area.bitmap = used_words_;
    used_words_ += words;
  }
  if (buffer != nullptr) system.unmap(buffer, kEntriesAtOnce * sizeof(uint64_t));
}

bool Residency::ReadBits(ProcFile* pagemap, const Area& area, uint64_t* buffer, bool owned_only, uint64_t* counted) {
  const uint64_t pages = (area.end - area.start) / kPage;
  uint64_t* bits = &bits_[used_words_];
  memset(bits, 0, WordsOf(area) * sizeof(uint64_t));
  const uint64_t owned_bits = owned_only ? OwnedBits(area) : ~0ull;
  uint64_t resident = 0;
  for (uint64_t page = 0; page < pages;) {
    const uint64_t wanted = pages - page < kEntriesAtOnce ? pages - page : kEntriesAtOnce;
    const long got = pagemap->ReadAt((area.start / kPage + page) * sizeof(uint64_t), buffer, wanted * sizeof(uint64_t));
    if (got < static_cast<long>(sizeof(uint64_t))) return false;
    const uint64_t count = static_cast<uint64_t>(got) / sizeof(uint64_t);
    for (uint64_t i = 0; i < count; ++i) {
      if ((buffer[i] & kPresent) == 0 || (buffer[i] & owned_bits) == 0) continue;
      bits[(page + i) / kBits] |= 1ull << ((page + i) % kBits);
      resident += kPage;
    }
    page += count;
  }
  *counted = resident;
  return true;
}

uint64_t Residency::CountPages(uint64_t first_bit, uint64_t end_bit) const {
  uint64_t count = 0;
  while (first_bit < end_bit) {
    const uint64_t offset = first_bit % kBits;
    const uint64_t here = end_bit - first_bit < kBits - offset ? end_bit - first_bit : kBits - offset;
    const uint64_t mask = here == kBits ? ~0ull : LowBits(here) << offset;
    count += static_cast<uint64_t>(__builtin_popcountll(bits_[first_bit / kBits] & mask));
    first_bit += here;
  }
  return count;
}

uint64_t Residency::Bytes(const Area& area, uint64_t start, uint64_t end) const {
  if (start >= end || area.bitmap == kNone) return 0;
  if (area.bitmap == kAll) return end - start;
  if (area.bitmap == kEvenly) {
    const double share = static_cast<double>(area.resident) / static_cast<double>(area.end - area.start);
    return static_cast<uint64_t>(static_cast<double>(end - start) * share);
  }
  const uint64_t base = area.bitmap * kBits;
  const uint64_t first = (start - area.start) / kPage, last = (end - 1 - area.start) / kPage;
  uint64_t bytes = CountPages(base + first, base + last + 1) * kPage;
  // Of the first and the last page only what lies in the span.
  if (CountPages(base + first, base + first + 1) != 0) bytes -= start - (area.start + first * kPage);
  if (CountPages(base + last, base + last + 1) != 0) bytes -= area.start + (last + 1) * kPage - end;
  return bytes;
}

}  // namespace nodeleak::memory
