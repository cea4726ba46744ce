// Outside node. What was alive in the JavaScript heaps over time, as far as collections tell. Pure arithmetic.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "recording/recording.h"

namespace nodeleak::report {

inline constexpr size_t kHeapParts = 8;  // of the time until the last full GC

struct HeapPoint {
  double seconds = 0, used = 0;
};

// Right after a full GC what is used is alive. At other times at most that is: after a collection of the young it is
// old garbage, too. A small heap may have its first full GC at the end.
struct HeapCurve {
  std::vector<HeapPoint> exact;                 // after full GCs of all; the forced ones at the end are one, the last
  std::array<HeapPoint, kHeapParts> part = {};  // the least in each part, 0 bytes: not read in it
  HeapPoint first;                              // where the parts begin
  bool starts_exact = false;                    // right after a full GC
  double last_bound = 0;                        // the last before the last full GC
  double least_since = 0;                       // well after the last full GC; 0: not known
  bool forced = false;                          // the last full GC was ours: it frees more than V8's own do

  bool empty() const { return exact.empty(); }
  const HeapPoint& last() const { return exact.back(); }
  double seconds() const { return last().seconds - first.seconds; }
  // At most so much was alive when the part began, if what is alive never fell since.
  double AtMost(size_t part) const;
};
HeapCurve HeapCurveOf(const recording::Recording& recording);

// More is alive at the end than can have been alive before, ever more, and what full GCs left lies along the way.
bool RisesBeyondBounds(const HeapCurve& curve);
// What collections of the young left rises evenly, and by no more than what is alive at the end: it is no garbage.
bool RisesWithBounds(const HeapCurve& curve);
// It may be a table that was filled, or a leak.
bool IsMoreThanAtFirst(const HeapCurve& curve);
bool IsLittleMoreThanAtFirst(const HeapCurve& curve);
// Full GCs, or bounds with next to no garbage in them, say that no more came later on, or that it went again.
bool IsSeenToStop(const HeapCurve& curve);
// As much as at the end was there before, and it was no garbage: bounds alone say how much may have been alive, not
// that it was.
bool WasThereBefore(const HeapCurve& curve);

}  // namespace nodeleak::report
