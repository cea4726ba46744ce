// Outside node. Is it a leak? A pure function from evidence to a word, the sentences that bear it out, and how sure we
// are.
//
// The idea: a leak is a survival curve that does not come down to zero. Cut the life of a group into windows; let a(k)
// be what was allocated in window k and s(k) what of it is still outstanding. A leak has s/a flat and above zero at
// every age, a cache has it at the young end only, a table at the old end only. Slopes of live bytes alone mistake
// caches that fill and waving request rates for leaks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "report/model.h"

namespace nodeleak::report {

inline constexpr size_t kWindows = 20;

struct Window {
  double allocated = 0;    // blocks
  uint64_t survivors = 0;  // blocks of these that are outstanding
  uint64_t survivor_bytes = 0;
};

struct Evidence {
  // The windows divide [begin, end]: from the group's first allocation to the last moment the application was active.
  std::array<Window, kWindows> windows = {};
  double begin_seconds = 0, end_seconds = 0;
  double run_seconds = 0;
  double first_allocation_seconds = 0, last_allocation_seconds = 0;
  uint64_t live_bytes = 0, live_blocks = 0;
  uint64_t allocations = 0;
  uint64_t reserved_bytes = 0;    // mapped without access: address space only
  bool windows_measured = false;  // a(k) comes from checkpoints; otherwise allocations are taken as evenly spread

  // A collector decides when this memory goes (directly or through a wrapper object): age counts in full GCs as well.
  bool owned_by_collector = false;
  bool full_gc_at_end = false;
  SurvivedGcs survived_gcs;
  uint64_t blocks_that_met_a_gc = 0;
};

struct Judgement {
  Verdict verdict = Verdict::kNew;
  Confidence confidence = Confidence::kLow;
  std::vector<std::string> evidence;
  uint64_t bytes_per_second = 0;
};

Judgement Judge(const Evidence& evidence);

}  // namespace nodeleak::report
