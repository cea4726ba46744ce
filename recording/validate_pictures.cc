// Outside. Memory pictures: a picture is used as a whole or not at all.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "recording/validate.h"

namespace nodeleak::recording {
namespace {

// No process has more than its address space, and sums of a few of these stay below 2^64.
constexpr uint64_t kMostBytes = 1ull << 48;

bool Fits(uint64_t first, uint64_t count, size_t size) { return first <= size && count <= size - first; }

bool IsPlausible(const MemoryPicture& picture) {
  const bool amounts = std::all_of(std::begin(picture.parts), std::end(picture.parts), [](const MemoryAmount& part) {
    return part.mapped < kMostBytes && part.resident < kMostBytes;
  });
  return amounts && picture.rss_bytes < kMostBytes && picture.swapped_bytes < kMostBytes &&
         picture.page_table_bytes < kMostBytes;
}

bool IsPlausible(const MemoryUse& use) {
  return use.bytes < kMostBytes && use.resident < kMostBytes && use.reserved < kMostBytes && use.count < kMostBytes;
}

bool IsPlausible(const MemoryArena& arena) {
  const uint64_t all[] = {arena.mapped,      arena.resident,           arena.block_bytes, arena.free_bytes,
                          arena.free_chunks, arena.largest_free_bytes, arena.top_bytes,   arena.in_use_bytes};
  return std::all_of(std::begin(all), std::end(all), [](uint64_t value) { return value < kMostBytes; });
}

template <typename T>
bool CopyPart(const std::vector<T>& table, uint64_t first, uint64_t count, std::vector<T>* out) {
  if (!Fits(first, count, table.size())) return false;
  out->assign(table.begin() + static_cast<ptrdiff_t>(first), table.begin() + static_cast<ptrdiff_t>(first + count));
  return std::all_of(out->begin(), out->end(), [](const T& entry) { return IsPlausible(entry); });
}

}  // namespace

void TakePictures(const std::vector<MemoryPicture>& pictures, const std::vector<MemoryUse>& uses,
                  const std::vector<MemoryArena>& arenas, Recording* recording) {
  constexpr size_t kMostPictures = 16;  // each may claim all of the uses
  uint64_t wrong = 0, unfinished = 0, wrong_stacks = 0;
  for (size_t i = 0; i < std::min(pictures.size(), kMostPictures); ++i) {
    PictureInfo info;
    info.picture = pictures[i];
    if (info.picture.sequence % 2 != 0) ++unfinished;
    if (info.picture.sequence % 2 != 0 || info.picture.moment == 0) continue;
    if (info.picture.moment >= static_cast<uint32_t>(PictureMoment::kCount) || !IsPlausible(info.picture) ||
        !CopyPart(uses, info.picture.first_use, info.picture.use_count, &info.uses) ||
        !CopyPart(arenas, info.picture.first_arena, info.picture.arena_count, &info.arenas)) {
      ++wrong;
      continue;
    }
    for (MemoryUse& use : info.uses) {
      if (use.stack < recording->stacks.size()) continue;
      use.stack = 0;
      ++wrong_stacks;
    }
    auto& kept = recording->pictures;
    const auto same = std::find_if(kept.begin(), kept.end(),
                                   [&](const PictureInfo& other) { return other.moment() == info.moment(); });
    if (same == kept.end()) {
      kept.push_back(std::move(info));
    } else if (same->picture.time_ns < info.picture.time_ns) {
      *same = std::move(info);
    }
  }
  if (wrong != 0) recording->damage.push_back(absl::StrCat(wrong, " memory pictures make no sense: left out"));
  if (wrong_stacks != 0) {
    recording->damage.push_back(
        absl::StrCat(wrong_stacks, " entries of memory pictures point to stacks that do not exist"));
  }
  if (unfinished != 0) recording->notes.push_back("a memory picture was just being taken: an older one is shown");
}

}  // namespace nodeleak::recording
