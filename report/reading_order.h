// Outside node. Which groups a person sees, in which order, and how much of each. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "report/model.h"

namespace nodeleak::report {

// Growing, and large enough to be news.
bool IsHeadline(const Group& group);

// Headlines first, then by size; the background after these, and last what holds nothing any more.
void SortForReading(std::vector<const Group*>* groups);

struct FullGroup {
  const Group* group = nullptr;
  // V8's bookkeeping of the same memory, at the same site: said in one line instead of a group of its own.
  uint64_t also_bytes = 0, also_groups = 0;
};
struct ReadingPlan {
  std::vector<FullGroup> full;        // with stacks
  std::vector<const Group*> brief;    // a line in a table
  std::vector<const Group*> growing;  // the headlines, without bookkeeping
  uint64_t hidden_groups = 0, hidden_bytes = 0;
};
// `top` groups at most; 0: all of them, each in full.
ReadingPlan PlanReading(const Report& report, uint64_t top);

}  // namespace nodeleak::report
