// Outside node. The survival curve of a group: how much of what was allocated at which age is outstanding, with the
// bounds that the numbers allow. Pure arithmetic.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nodeleak::report {

inline constexpr size_t kWindows = 20;
inline constexpr size_t kTailWindows = 2;  // the youngest tenth may simply not be freed yet
inline constexpr size_t kThird = (kWindows - kTailWindows) / 3;

struct Window {
  double allocated = 0;                              // blocks, in the unit of survivors
  uint64_t survivors = 0;                            // blocks of these that are outstanding; of a sampled run, samples
  uint64_t survivor_blocks = 0, survivor_bytes = 0;  // that they stand for
};
using Windows = std::array<Window, kWindows>;

// Survivors out of what was allocated, with Wilson's bounds of 90 %.
struct Proportion {
  double survivors = 0, allocated = 0;

  double Value() const { return allocated <= 0 ? 0 : survivors / allocated; }
  double Lower() const { return allocated <= 0 ? 0 : Wilson(-1); }
  double Upper() const { return allocated <= 0 ? 1 : Wilson(1); }

 private:
  double Wilson(int sign) const;
};

struct Thirds {
  Proportion old, middle, young, tail;

  double survivors() const { return old.survivors + middle.survivors + young.survivors; }
  double allocated() const { return old.allocated + middle.allocated + young.allocated; }
  // Flat and above zero: what a leak looks like.
  bool EveryAgeSurvives() const;
  // The bounds allow that it is flat, and yet it falls clearly towards the old: what a random eviction looks like.
  bool FallsWithAge() const;
  // The same towards the young, of few: what is asked for again and again stays in a cache, and is soon all there.
  bool RisesWithAge() const;
};
Thirds ThirdsOf(const Windows& windows);

// Share of the windows before the tail that hold something, or had nothing to hold. Few survivors in a bunch are no
// curve.
double OccupiedShare(const Windows& windows);

}  // namespace nodeleak::report
