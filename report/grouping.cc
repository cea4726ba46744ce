#include "report/grouping.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/absl_view.h"
#include "report/collectors.h"
#include "report/group_evidence.h"
#include "report/held_until_end.h"
#include "report/remarks.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

constexpr char kSeparator[] = "\x1f";
constexpr uint64_t kSmallGarbage = 4096;  // less is not worth a sentence

std::string FileName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

// Files below the working directory are named from there, so that another checkout gives the same id.
std::string SiteKey(const std::optional<Site>& site, std::string_view directory) {
  if (!site.has_value()) return "";
  return absl::StrCat(site->function, kSeparator, RelativePath(site->file, directory), kSeparator, site->line,
                      kSeparator, site->column);
}
std::string OriginKey(const std::optional<Origin>& origin) {
  if (!origin.has_value()) return "";
  return absl::StrCat(origin->function, kSeparator, FileName(origin->module));
}

std::string FunctionKey(const ClassifiedUse& use, std::string_view directory) {
  if (use.site.has_value()) {
    return absl::StrCat(use.site->function, kSeparator, RelativePath(use.site->file, directory));
  }
  return OriginKey(use.origin);
}

std::string PackageOf(const ClassifiedUse& use) {
  if (use.site.has_value() && !use.site->package.empty()) return use.site->package;
  if (use.origin.has_value() && !use.origin->package.empty()) return use.origin->package;
  return use.site.has_value() ? "(application)" : "(no package)";
}

// The stack itself, frame by frame: indices of a recording are not stable across runs.
std::string StackKey(const StackView& stack, std::string_view directory) {
  std::string key;
  for (const ClassifiedFrame* frame : stack) {
    absl::StrAppend(&key, frame->frame.function, kSeparator, RelativePath(frame->frame.file, directory), kSeparator,
                    frame->frame.line, kSeparator, frame->frame.column, kSeparator, FileName(frame->frame.module),
                    frame->frame.function.empty() ? absl::StrCat("+", frame->frame.offset) : "", "\n");
  }
  return key;
}

struct Keys {
  const recording::Recording& recording;
  const FrameTable& frames;
  const std::vector<std::string>& thread_names;
  std::string_view directory;

  std::string ThreadOf(uint32_t stack) const {
    const uint32_t thread = recording.stacks[stack].thread;
    return thread < thread_names.size() ? thread_names[thread] : "unknown";
  }
  std::string Of(const ClassifiedUse& use, GroupBy group_by) const {
    switch (group_by) {
      case GroupBy::kStack:
        return absl::StrCat(KindName(use.kind), kSeparator, StackKey(frames.View(use.use->stack), directory));
      case GroupBy::kFunction:
        return FunctionKey(use, directory);
      case GroupBy::kPackage:
        return PackageOf(use);
      case GroupBy::kKind:
        return KindName(use.kind);
      case GroupBy::kThread:
        return ThreadOf(use.use->stack);
      case GroupBy::kDefault:
        break;
    }
    return absl::StrCat(KindName(use.kind), kSeparator, SiteKey(use.site, directory), kSeparator,
                        OriginKey(use.origin));
  }
};

uint64_t FreedBytes(const Use& use) { return use.garbage_bytes + use.pending_bytes; }

using Members = std::vector<const ClassifiedUse*>;

const ClassifiedUse* HeaviestOf(const Members& members) {
  return *std::max_element(members.begin(), members.end(), [](const ClassifiedUse* left, const ClassifiedUse* right) {
    return left->use->live_bytes < right->use->live_bytes;
  });
}

// A site or origin is named when all members have it; otherwise the group is of many.
void NameGroup(const Members& members, GroupBy group_by, Group* group) {
  const ClassifiedUse& heaviest = *HeaviestOf(members);
  group->kind = heaviest.kind;
  const bool same_site = std::all_of(members.begin(), members.end(),
                                     [&](const ClassifiedUse* member) { return member->site == heaviest.site; });
  const bool same_origin = std::all_of(members.begin(), members.end(),
                                       [&](const ClassifiedUse* member) { return member->origin == heaviest.origin; });
  if (same_site || group_by == GroupBy::kDefault) group->site = heaviest.site;
  if (same_origin || group_by == GroupBy::kDefault) group->origin = heaviest.origin;
  if (group_by == GroupBy::kFunction && !same_site && heaviest.site.has_value()) {
    group->site = Site{heaviest.site->function, heaviest.site->file, 0, 0, heaviest.site->package};
  }
  if (group_by == GroupBy::kPackage && !same_site) group->site = Site{"", "", 0, 0, PackageOf(heaviest)};
}

void AddUp(const recording::Recording& recording, const Members& members, Group* group) {
  double variance = 0;
  for (const ClassifiedUse* member : members) variance += member->use->variance;
  if (recording.process.sample_bytes != 0) group->live_bytes_error = SamplingError(variance);
  for (const ClassifiedUse* member : members) {
    group->live_bytes += member->use->live_bytes;
    group->live_blocks += member->use->live_blocks;
    group->reserved_bytes += member->use->reserved_bytes;
    group->garbage_bytes += member->use->garbage_bytes;
    group->garbage_blocks += member->use->garbage_blocks;
    group->pending_bytes += member->use->pending_bytes;
    group->pending_blocks += member->use->pending_blocks;
    if (!member->use->owns_counters) continue;
    group->allocated_bytes += recording.stacks[member->use->stack].allocated_bytes;
    group->allocations += recording.stacks[member->use->stack].allocated_blocks;
  }
}

void NameThreads(const Members& members, const Keys& keys, Group* group) {
  for (const ClassifiedUse* member : members) {
    if (member->use->live_blocks == 0 && FreedBytes(*member->use) == 0) continue;
    std::string name = keys.ThreadOf(member->use->stack);
    if (std::find(group->threads.begin(), group->threads.end(), name) == group->threads.end()) {
      group->threads.push_back(std::move(name));
    }
  }
  std::sort(group->threads.begin(), group->threads.end());
}

// Stacks of several threads, and stacks that look the same to the reader, are one stack.
void AddStacks(const Members& members, const FrameTable& frames, uint64_t max_stacks, Group* group) {
  absl::flat_hash_map<std::vector<uint32_t>, size_t> index_of;
  for (const ClassifiedUse* member : members) {
    if (member->use->live_blocks == 0 && (group->live_blocks != 0 || FreedBytes(*member->use) == 0)) continue;
    const StackView view = frames.View(member->use->stack);
    std::vector<uint32_t> looks;
    looks.reserve(view.size());
    for (const ClassifiedFrame* frame : view) looks.push_back(frame->look);
    const auto [entry, is_new] = index_of.try_emplace(std::move(looks), group->stacks.size());
    if (is_new) {
      group->stacks.emplace_back();
      for (const ClassifiedFrame* frame : view) group->stacks.back().frames.push_back(frame->frame);
    }
    group->stacks[entry->second].live_bytes += member->use->live_bytes;
    group->stacks[entry->second].live_blocks += member->use->live_blocks;
  }
  std::stable_sort(group->stacks.begin(), group->stacks.end(),
                   [](const StackUse& left, const StackUse& right) { return left.live_bytes > right.live_bytes; });
  if (max_stacks != 0 && group->stacks.size() > max_stacks) group->stacks.resize(max_stacks);
}

// What the full GC took is not judged by the survivors: when there are none, it is all that there was.
void AddFreedEvidence(Group* group) {
  const uint64_t freed = FreedBytes(*group);
  if (freed < kSmallGarbage) return;
  if (group->live_blocks == 0 && group->reserved_bytes == 0) {
    group->verdict = group->pending_bytes > group->garbage_bytes ? Verdict::kPending : Verdict::kGarbage;
    group->confidence = Confidence::kHigh;
    group->evidence.clear();
    group->rate = {};
  }
  if (group->garbage_bytes != 0) {
    group->evidence.push_back(absl::StrCat("the full GC at the end freed ", FormatBytes(group->garbage_bytes), " in ",
                                           Plural(group->garbage_blocks, "block"), " of it"));
  }
  if (group->pending_bytes != 0) {
    group->evidence.push_back(absl::StrCat("finalizers after the full GC at the end freed ",
                                           FormatBytes(group->pending_bytes), " in ",
                                           Plural(group->pending_blocks, "block"), " of it"));
  }
}

std::vector<const Use*> UsesOf(const Members& members) {
  std::vector<const Use*> uses;
  uses.reserve(members.size());
  for (const ClassifiedUse* member : members) uses.push_back(member->use);
  return uses;
}

void ApplyVerdict(const Evidence& evidence, Group* group) {
  Judgement judgement = Judge(evidence);
  group->verdict = judgement.verdict;
  group->confidence = judgement.confidence;
  group->evidence = std::move(judgement.evidence);
  group->rate = judgement.rate;
  AddFreedEvidence(group);
  group->survived_gcs = evidence.survived_gcs;
  group->first_seen_seconds = evidence.first_allocation_seconds;
  group->last_seen_seconds = evidence.last_allocation_seconds;
}

std::optional<Site> SiteAt(const StackView& stack, std::optional<size_t> index, Packages* packages) {
  if (!index.has_value()) return std::nullopt;
  const Frame& frame = stack[*index]->frame;
  return Site{frame.function, frame.file.empty() ? frame.module : frame.file, frame.line, frame.column,
              packages->Of(frame.file)};
}
std::optional<Origin> OriginAt(const StackView& stack, std::optional<size_t> index, Packages* packages) {
  if (!index.has_value()) return std::nullopt;
  const Frame& frame = stack[*index]->frame;
  return Origin{frame.function, frame.module, frame.file, frame.line, packages->Of(frame.module)};
}

bool IsNative(const ClassifiedFrame& frame) { return frame.frame.type == FrameType::kNative; }

AddonRole AddonRoleOf(const StackView& stack) {
  bool node_inside = false, any_native = false;
  for (const ClassifiedFrame* frame : stack) {
    if (!IsNative(*frame)) continue;
    any_native = true;
    const std::string& function = frame->frame.function;
    if (frame->frame.module.ends_with(".node")) return node_inside ? AddonRole::kNodeApi : AddonRole::kOwner;
    if (function.starts_with("napi_")) return AddonRole::kNodeApi;
    node_inside |= function.starts_with("v8impl::") || function.starts_with("node::");
  }
  return any_native ? AddonRole::kNone : AddonRole::kUnknown;
}

// Written by one thread or read by the other. What the receiver's JavaScript allocates then is not part of it.
bool IsPartOfMessage(const StackView& stack) {
  for (const ClassifiedFrame* frame : stack) {
    if (frame->frame.type == FrameType::kJs) return false;
    if (IsNative(*frame) && frame->frame.function.starts_with("node::worker::Message")) return true;
  }
  return false;
}

}  // namespace

std::string HashId(std::string_view key) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (char c : key) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return absl::StrFormat("%016x", hash);
}

uint64_t SetAsideReservations(uint64_t rss_bytes, std::vector<ClassifiedUse>* uses) {
  constexpr uint64_t kSmallestCage = 16u << 20;  // smaller ones are pages that V8 cut out of a cage and uses
  uint64_t reserved = 0;
  for (ClassifiedUse& use : *uses) {
    if (use.use->source == Source::kMapping) {
      if (use.is_cage) SetAsideMappings(kSmallestCage, use.use);
      if (rss_bytes != 0) SetAsideMappings(std::max(rss_bytes, kSmallestCage), use.use);
    }
    reserved += use.use->reserved_bytes;
  }
  return reserved;
}

std::vector<ClassifiedUse> ClassifyUses(std::vector<Use>* uses, const FrameTable& frames, Packages* packages) {
  std::vector<ClassifiedUse> classified;
  classified.reserve(uses->size());
  for (Use& use : *uses) {
    const StackView stack = frames.View(use.stack);
    const Classification classification = ClassifyStack(stack, use.source);
    classified.push_back({&use, classification.kind, SiteAt(stack, classification.site, packages),
                          OriginAt(stack, classification.origin, packages), classification.is_cage, AddonRoleOf(stack),
                          IsPartOfMessage(stack)});
  }
  return classified;
}

std::vector<Group> MakeGroups(const recording::Recording& recording, const std::vector<ClassifiedUse>& uses,
                              const FrameTable& frames, const std::vector<std::string>& thread_names,
                              const ReportOptions& options) {
  const Keys keys = {recording, frames, thread_names, StdView(recording.process.working_directory)};
  absl::flat_hash_map<std::string, Members> members_of;
  for (const ClassifiedUse& use : uses) members_of[keys.Of(use, options.group_by)].push_back(&use);

  const Timebase timebase(recording);
  const Collectors collectors(recording, uses);
  std::vector<Group> groups;
  for (const auto& [key, members] : members_of) {
    Group group;
    AddUp(recording, members, &group);
    const Evidence evidence = CollectEvidence(recording, timebase, collectors, members);
    if (group.live_blocks == 0 && evidence.reserved_bytes == 0 && FreedBytes(group) < kSmallGarbage) continue;
    group.id = HashId(key);
    NameGroup(members, options.group_by, &group);
    NameThreads(members, keys, &group);
    AddStacks(members, frames, options.max_stacks, &group);
    ApplyVerdict(evidence, &group);
    if (group.verdict == Verdict::kGarbage) {
      std::string held = HeldUntilEndSentence(recording, timebase, UsesOf(members));
      if (!held.empty()) group.evidence.push_back(std::move(held));
    }
    for (std::string& remark : RemarksOn(group, frames.View(HeaviestOf(members)->use->stack))) {
      group.evidence.push_back(std::move(remark));
    }
    groups.push_back(std::move(group));
  }
  std::sort(groups.begin(), groups.end(), [](const Group& left, const Group& right) {
    return left.live_bytes != right.live_bytes ? left.live_bytes > right.live_bytes : left.id < right.id;
  });
  return groups;
}

}  // namespace nodeleak::report
