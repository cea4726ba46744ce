#include "report/reading_order.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace nodeleak::report {
namespace {

// A few KiB that grow while V8 warms up are no headline; they are found among the groups.
constexpr uint64_t kHeadlineBytes = 16 * 1024;
// What has a site of the application is of interest from 1 % of what is outstanding on; what node itself holds, from 5.
constexpr uint64_t kSharePercent = 1, kOwnSharePercent = 5;
constexpr uint64_t kSmallSteady = 1 << 20;  // what every node holds from its start on is below this, group by group
constexpr uint64_t kBookkeepingShare = 4;   // less than a quarter of what it belongs to

enum Rank { kHeadlineRank, kOrdinary, kBackground, kNothingLive };

Rank RankOf(const Group& group) {
  if (group.live_blocks == 0) return kNothingLive;
  if (IsBackground(group.kind)) return kBackground;
  return IsHeadline(group) ? kHeadlineRank : kOrdinary;
}

bool HasShare(const Group& group, uint64_t whole, uint64_t percent) {
  return static_cast<double>(group.live_bytes) * 100 >= static_cast<double>(whole) * static_cast<double>(percent);
}

bool IsSuspect(const Group& group) {
  return group.verdict == Verdict::kGrowing || group.verdict == Verdict::kLost || group.verdict == Verdict::kPending;
}

bool DeservesStacks(const Group& group, uint64_t whole) {
  if (IsBackground(group.kind)) return false;
  if (IsHeadline(group)) return true;
  const bool steady = group.verdict == Verdict::kStartup || group.verdict == Verdict::kBounded;
  if (HasShare(group, whole, kOwnSharePercent) && (!steady || group.live_bytes >= kSmallSteady)) return true;
  return (group.site.has_value() || IsSuspect(group)) && HasShare(group, whole, kSharePercent);
}

struct SiteLess {
  bool operator()(const Site* left, const Site* right) const {
    const auto key = [](const Site& site) { return std::tie(site.line, site.column, site.file, site.function); };
    return key(*left) < key(*right);
  }
};
// The heaviest group at each site that is not V8's own.
using MainGroups = std::map<const Site*, const Group*, SiteLess>;

MainGroups FindMainGroups(const Report& report) {
  MainGroups mains;
  for (const Group& group : report.groups) {
    if (!group.site.has_value() || IsBackground(group.kind) || group.kind == Kind::kV8Internal) continue;
    const Group*& main = mains[&*group.site];
    if (main == nullptr || main->live_bytes < group.live_bytes) main = &group;
  }
  return mains;
}

// The group whose bookkeeping this is; nullptr: a group in its own right.
const Group* BelongsTo(const Group& group, const MainGroups& mains) {
  if (group.kind != Kind::kV8Internal || !group.site.has_value()) return nullptr;
  const auto main = mains.find(&*group.site);
  if (main == mains.end() || group.live_bytes >= main->second->live_bytes / kBookkeepingShare) return nullptr;
  return main->second;
}

void AddToMain(const Group& group, const Group* main, ReadingPlan* plan) {
  for (FullGroup& full : plan->full) {
    if (full.group != main) continue;
    full.also_bytes += group.live_bytes;
    full.also_groups += 1;
  }
}

}  // namespace

bool IsHeadline(const Group& group) {
  return group.verdict == Verdict::kGrowing && !IsBackground(group.kind) && group.live_bytes >= kHeadlineBytes;
}

void SortForReading(std::vector<const Group*>* groups) {
  std::stable_sort(groups->begin(), groups->end(), [](const Group* left, const Group* right) {
    const Rank left_rank = RankOf(*left), right_rank = RankOf(*right);
    return left_rank != right_rank ? left_rank < right_rank : left->live_bytes > right->live_bytes;
  });
}

ReadingPlan PlanReading(const Report& report, uint64_t top) {
  ReadingPlan plan;
  const MainGroups mains = FindMainGroups(report);
  std::vector<const Group*> own, bookkeeping;
  for (const Group& group : report.groups) {
    if (group.live_blocks == 0) continue;
    const bool is_bookkeeping = BelongsTo(group, mains) != nullptr;
    if (IsHeadline(group) && !is_bookkeeping) plan.growing.push_back(&group);
    (is_bookkeeping && top != 0 ? bookkeeping : own).push_back(&group);
  }
  SortForReading(&plan.growing);
  SortForReading(&own);
  plan.hidden_groups = report.left_out_groups;
  plan.hidden_bytes = report.left_out_bytes;
  // Those in full come first: a table in the middle of them would hide what follows.
  size_t taken = 0;
  for (const Group* group : own) {
    const bool fits = top == 0 || taken < top;
    taken += fits;
    if (!fits) {
      plan.hidden_groups += 1;
      plan.hidden_bytes += IsBackground(group->kind) ? 0 : group->live_bytes;
    } else if (top == 0 || DeservesStacks(*group, report.totals.live_bytes)) {
      plan.full.push_back({group});
    } else {
      plan.brief.push_back(group);
    }
  }
  for (const Group* group : bookkeeping) AddToMain(*group, BelongsTo(*group, mains), &plan);
  return plan;
}

}  // namespace nodeleak::report
