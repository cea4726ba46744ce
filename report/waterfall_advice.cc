// What would help against memory that nobody holds. Only where the numbers back it.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "report/text_layout.h"
#include "report/waterfall.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kWorthAdvice = 32ull << 20;
constexpr uint64_t kWorthPart = 4;        // a quarter of the RSS
constexpr uint64_t kCloseToLimit = 80;    // percent
constexpr size_t kManyArenas = 3;         // of threads
constexpr uint64_t kNearlyAll = 80;       // percent
constexpr uint64_t kRunWithPages = 8192;  // bytes

const MemoryLine* FindLine(const Memory& memory, const char* name) {
  for (const MemoryLine& line : memory.lines) {
    if (line.name == name) return &line;
  }
  return nullptr;
}

struct FreeByArena {
  uint64_t largest = 0, main = 0, threads = 0;
  size_t thread_arenas = 0;
};
FreeByArena SplitFree(const MemoryLine& free) {
  FreeByArena split;
  for (const MemoryLine& arena : free.parts) {
    const uint64_t bytes = arena.touched_bytes.value_or(0);
    const bool is_main = arena.name == "main arena";
    (is_main ? split.main : split.threads) += bytes;
    split.largest = std::max(split.largest, bytes);
    if (!is_main) ++split.thread_arenas;
  }
  return split;
}

std::string ArenaAdvice(const MemoryLine& free) {
  const FreeByArena split = SplitFree(free);
  if (split.thread_arenas >= kManyArenas && split.threads >= split.main) {
    return absl::StrCat("MALLOC_ARENA_MAX=2 in the environment would help: ", FormatBytes(split.threads),
                        " of it lie in ", Plural(split.thread_arenas, "arena"), " of threads");
  }
  if (split.largest >= free.bytes / 100 * kNearlyAll)
    return "MALLOC_ARENA_MAX would not help: nearly all of it is in one arena";
  return absl::StrCat("MALLOC_ARENA_MAX would not help much: ", FormatBytes(split.largest), " of it is in one arena");
}

// malloc_trim gives whole pages back. In short runs there is hardly one.
std::string TrimAdvice(const std::vector<recording::MemoryArena>& arenas) {
  uint64_t runs = 0, bytes = 0;
  for (const recording::MemoryArena& arena : arenas) {
    runs += arena.free_chunks;
    bytes += arena.free_bytes + arena.top_bytes;
  }
  if (runs == 0 || bytes / runs >= kRunWithPages) return "try jemalloc (LD_PRELOAD), or malloc_trim(0) from an addon; ";
  return absl::StrCat("try jemalloc (LD_PRELOAD); malloc_trim would give little back, its free runs have ",
                      FormatBytes(bytes / runs), " on average; ");
}

void AdviseOnFree(const std::vector<recording::MemoryArena>& arenas, bool is_libc, Memory* memory) {
  const MemoryLine* free = FindLine(*memory, kFreeLine);
  if (free == nullptr || free->bytes < kWorthAdvice || free->bytes < memory->rss_bytes / kWorthPart) return;
  std::string advice = absl::StrCat(FormatBytes(free->bytes), " of ", FormatBytes(memory->rss_bytes),
                                    " is free memory that malloc keeps, no leak");
  if (is_libc) absl::StrAppend(&advice, ": ", TrimAdvice(arenas), ArenaAdvice(*free));
  memory->advice.push_back(std::move(advice));
}

void AdviseOnLimit(Memory* memory) {
  if (memory->limit_bytes == 0 || memory->limit_used_bytes * 100 < memory->limit_bytes * kCloseToLimit) return;
  memory->advice.push_back(
      absl::StrCat("the memory limit is close: ", FormatBytes(memory->limit_used_bytes), " of ",
                   FormatBytes(memory->limit_bytes), " are used, file cache included",
                   memory->limit_throttles ? "; it is memory.high: beyond it the kernel slows the process down" : ""));
}

}  // namespace

void Advise(const std::vector<recording::MemoryArena>& arenas, bool is_libc, Memory* memory) {
  AdviseOnFree(arenas, is_libc, memory);
  AdviseOnLimit(memory);
}

}  // namespace nodeleak::report
