// Outside. Named moments of an attach, at which a test may end this process to see what becomes of the target.
#pragma once

#include "absl/strings/string_view.h"

namespace nodeleak::tracer {

// Every name that is reached, in the order of an attach and a detach.
inline constexpr const char* kTestPoints[] = {
    "library written", "before registers", "after registers", "during call", "call done", "library loaded",
    "file made",       "recorder started", "page mapped",     "file sent",   "recording", "world stopped",
    "half patched",    "patched",          "half unpatched",  "unpatched"};

using TestObserver = void (*)(absl::string_view point);
inline TestObserver g_test_observer = nullptr;  // set by a test, before anything is traced

inline void ReachTestPoint(absl::string_view point) {
  if (g_test_observer != nullptr) g_test_observer(point);
}

}  // namespace nodeleak::tracer
