// Outside node. Groups uses by (kind, site, origin), or by what the user asked for, adds up what is outstanding, and
// has each group judged.
#pragma once

#include <string>
#include <vector>

#include "recording/recording.h"
#include "report/frames.h"
#include "report/report.h"
#include "report/uses.h"

namespace nodeleak::report {

// Whether an addon asked for the memory, and may have a finalizer for it.
enum class AddonRole : uint8_t {
  kNone,
  kOwner,    // its own allocation
  kNodeApi,  // node's, inside a call of Node-API that the addon made: a reference, a finalizer
  kUnknown,  // nothing is known of the stack
};

// A use, and what its stack says about it.
struct ClassifiedUse {
  Use* use = nullptr;
  Kind kind = Kind::kNative;
  std::optional<Site> site;
  std::optional<Origin> origin;
  bool is_cage = false;
  AddonRole addon_role = AddonRole::kNone;
  bool is_message = false;  // part of a postMessage between threads
};
// What is larger than all that the process has resident is not in use as a whole, and neither are V8's cages: from live
// to reserved. How much is reserved then.
uint64_t SetAsideReservations(uint64_t rss_bytes, std::vector<ClassifiedUse>* uses);

std::vector<ClassifiedUse> ClassifyUses(std::vector<Use>* uses, const FrameTable& frames, Packages* packages);

// All groups that hold anything, heaviest first.
std::vector<Group> MakeGroups(const recording::Recording& recording, const std::vector<ClassifiedUse>& uses,
                              const FrameTable& frames, const std::vector<std::string>& thread_names,
                              const ReportOptions& options);

// Stable across runs of the same program from the same directory, or from another one when its files are below it.
std::string HashId(std::string_view key);

}  // namespace nodeleak::report
