#include "report/uses.h"

#include <algorithm>
#include <cmath>

namespace nodeleak::report {
namespace {

constexpr uint32_t kNoAccess = 0;  // PROT_NONE

class UseMap {
 public:
  Use& At(uint32_t stack, Source source) {
    Use& use = uses_[{stack, source}];
    use.stack = stack;
    use.source = source;
    return use;
  }
  std::vector<Use> Take() {
    std::vector<Use> uses;
    uses.reserve(uses_.size());
    for (auto& [key, use] : uses_) uses.push_back(std::move(use));
    return uses;
  }

 private:
  std::map<std::pair<uint32_t, Source>, Use> uses_;
};

// Horvitz and Thompson: size^2 (1 - p) / p^2 for each sample, p being the chance it had.
double SampleVariance(const recording::Block& block) {
  const uint64_t size = recording::BlockSize(block);
  const double weight = recording::SampleWeight(size, recording::BlockRate(block));
  return static_cast<double>(size) * static_cast<double>(size) * weight * (weight - 1);
}

void AddBlocks(const recording::Recording& recording, UseMap* uses) {
  Use* last = nullptr;  // blocks of one stack often follow each other
  for (const recording::Block& block : recording.blocks) {
    if (last == nullptr || last->stack != block.stack) last = &uses->At(block.stack, Source::kBlock);
    const uint64_t blocks = recording::BlocksStoodFor(block);
    const uint64_t bytes = recording::BlockSize(block) * blocks;
    last->live_bytes += bytes;
    last->live_blocks += blocks;
    last->variance += SampleVariance(block);
    last->births.push_back({block.birth_tick, recording::BlockBirthGc(block), bytes, blocks});
  }
}

void AddRanges(const recording::Recording& recording, UseMap* uses) {
  for (const recording::Range& range : recording.ranges) {
    if ((range.flags & recording::kRangeBrk) != 0) continue;  // malloc's: its blocks are counted one by one
    const bool thread_stack = (range.flags & recording::kRangeThreadStack) != 0;
    Use& use = uses->At(range.stack, thread_stack ? Source::kThreadStack : Source::kMapping);
    const uint64_t bytes = range.end - range.start;
    if (range.protection == kNoAccess) {
      use.reserved_bytes += bytes;
      continue;
    }
    use.live_bytes += bytes;
    use.live_blocks += 1;
    use.births.push_back({range.birth_tick, range.birth_gc, bytes, 1});
  }
}

bool IsCovered(const recording::Recording& recording, const recording::ThreadInfo& thread) {
  return std::any_of(recording.ranges.begin(), recording.ranges.end(), [&](const recording::Range& range) {
    return range.start < thread.stack_end && range.end > thread.stack_start;
  });
}

// glibc maps the stacks of threads itself, past the hooks: what it mapped is known from the threads.
void AddThreadStacks(const recording::Recording& recording, UseMap* uses) {
  for (const recording::ThreadInfo& thread : recording.threads) {
    const bool ours = thread.role == recording::ThreadRole::kNodeleak || thread.role == recording::ThreadRole::kMain;
    if (ours || thread.end_ns != 0 || thread.stack_end <= thread.stack_start || IsCovered(recording, thread)) continue;
    Use& use = uses->At(thread.creation_stack == recording::kNoIndex ? 0 : thread.creation_stack, Source::kThreadStack);
    const uint64_t bytes = thread.stack_end - thread.stack_start;
    use.live_bytes += bytes;
    use.live_blocks += 1;
    use.births.push_back({static_cast<uint32_t>(thread.start_ns / recording::kTickNanoseconds), 0, bytes, 1});
  }
}

// Each stack's counters of allocations belong to one use: a stack is nearly always of one way to allocate.
void AddCounters(const recording::Recording& recording, UseMap* uses) {
  for (uint32_t i = 0; i < recording.stacks.size(); ++i) {
    const recording::Stack& stack = recording.stacks[i];
    if (stack.allocated_blocks == 0) continue;
    const bool mapping = (stack.flags & recording::kStackMapping) != 0;
    uses->At(i, mapping && i != 0 ? Source::kMapping : Source::kBlock).owns_counters = true;
  }
}

}  // namespace

uint64_t SamplingError(double variance) {
  constexpr double kNinetyFivePercent = 1.96;
  return static_cast<uint64_t>(kNinetyFivePercent * std::sqrt(variance));
}

void SetAsideMappings(uint64_t bytes, Use* use) {
  std::erase_if(use->births, [&](const Birth& birth) {
    if (birth.bytes < bytes) return false;
    use->live_bytes -= birth.bytes;
    use->live_blocks -= birth.blocks;
    use->reserved_bytes += birth.bytes;
    return true;
  });
}

std::vector<Use> CollectUses(const recording::Recording& recording) {
  UseMap uses;
  AddBlocks(recording, &uses);
  AddRanges(recording, &uses);
  AddThreadStacks(recording, &uses);
  AddCounters(recording, &uses);
  return uses.Take();
}

}  // namespace nodeleak::report
