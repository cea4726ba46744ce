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
#include "report/survival.h"
#include "report/timebase.h"
#include "report/trend.h"

namespace nodeleak::report {

struct Evidence {
  // The windows divide [begin, end]: from the group's first allocation (see SetPeriod) to the last moment that says
  // something about it.
  Windows windows = {};
  Trend trend;  // of the same period
  double begin_seconds = 0, end_seconds = 0;
  double run_seconds = 0;
  bool runs_on = false;  // the process had not ended when its recording was read or copied
  double first_allocation_seconds = 0, last_allocation_seconds = 0;
  double longest_pause_seconds = 0;  // between allocations, as far as births and checkpoints tell
  double turns = -1;                 // of the event loops while the group allocated; negative: not known
  std::array<double, 3> turns_of_thirds = {-1, -1, -1};  // of the period, as the windows have thirds
  Activity activity_after = Activity::kUnknown;          // of the whole program, after the group's last allocation
  uint64_t live_bytes = 0, live_blocks = 0;
  uint64_t blocks_of_the_start = 0;  // outstanding ones from before the period
  uint64_t allocations = 0;
  uint64_t reserved_bytes = 0;    // mapped without access: address space only
  bool windows_measured = false;  // a(k) comes from checkpoints; otherwise allocations are taken as evenly spread
  Kind kind = Kind::kNative;
  bool application_site = false;  // a line of JavaScript that is not node's own asked for it

  // In node a collector decides when memory goes, directly or through a wrapper object: only what has met a full GC is
  // evidence of growth.
  bool owned_by_collector = false;
  bool seen_by_gc = false;  // a full GC looked at most of the period, which then ends there
  double last_gc_seconds = 0;
  std::string doubt;  // why a later one does not count; "" otherwise
  SurvivedGcs survived_gcs;
};

struct Judgement {
  Verdict verdict = Verdict::kNew;
  Confidence confidence = Confidence::kLow;
  std::vector<std::string> evidence;
  GrowthRate rate;  // all 0 unless growing
};

Judgement Judge(const Evidence& evidence);

}  // namespace nodeleak::report
