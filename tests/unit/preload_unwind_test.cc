#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include "preload/unwind/call_frames.h"
#include "preload/unwind/known_stacks.h"
#include "preload/unwind/modules.h"
#include "preload/unwind/stack_walk.h"
#include "preload/unwind/unwind_rules.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

TEST(UnwindRule, KeepsWhatItIsGiven) {
  UnwindRule rule;
  ASSERT_TRUE(UnwindRule::Encode(false, 1048, -16, &rule));
  EXPECT_EQ(rule.kind(), RuleKind::kFrame);
  EXPECT_FALSE(rule.from_rbp());
  EXPECT_EQ(rule.cfa_offset(), 1048);
  EXPECT_EQ(rule.rbp_slot(), -16);
  ASSERT_TRUE(UnwindRule::Encode(true, 16, 0, &rule));
  EXPECT_TRUE(rule.from_rbp());
  EXPECT_EQ(rule.cfa_offset(), 16);
  EXPECT_EQ(rule.rbp_slot(), 0);
}

TEST(UnwindRule, RefusesWhatDoesNotFit) {
  UnwindRule rule;
  EXPECT_FALSE(UnwindRule::Encode(false, 12, 0, &rule));
  EXPECT_FALSE(UnwindRule::Encode(false, 1 << 20, 0, &rule));
  EXPECT_FALSE(UnwindRule::Encode(false, 16, -(1 << 15), &rule));
}

TEST(Modules, FindsTheProgramAndLibcWithTheirBuildIds) {
  RefreshModules();
  const ModuleInfo* program = FindModule(reinterpret_cast<uint64_t>(&RefreshModules));
  ASSERT_NE(program, nullptr);
  EXPECT_TRUE(program->is_executable);
  const ModuleInfo* libc = FindModule(reinterpret_cast<uint64_t>(&abort));
  ASSERT_NE(libc, nullptr);
  EXPECT_FALSE(libc->is_executable);
  EXPECT_EQ(libc->build_id_bytes, 20u);
  EXPECT_EQ(FindModule(0x10), nullptr);
}

// Return addresses all over a module's functions: near the start, in the middle, at the end.
std::vector<uint64_t> PlacesIn(const ModuleInfo& module) {
  std::vector<uint64_t> places;
  const auto* table = reinterpret_cast<const int32_t*>(module.unwind_table);
  for (uint64_t i = 0; i + 2 < module.unwind_table_bytes / 4; i += 2) {
    const int64_t start = table[i], end = table[i + 2];  // relative to the header
    for (int64_t at : {start + 1, start + 2, start + 5, (start + end) / 2, end - 6, end - 1, end})
      if (at > start && at <= end) places.push_back(module.eh_frame_hdr + static_cast<uint64_t>(at));
  }
  return places;
}

void ExpectTablesToSayWhatLibunwindSays(const ModuleInfo& module) {
  size_t in_functions = 0, from_tables = 0, differ = 0;
  for (uint64_t place : PlacesIn(module)) {
    const UnwindRule rule = RuleFromTables(module, place);
    if (rule.kind() == RuleKind::kFramePointer) continue;  // between functions
    ++in_functions;
    if (rule.kind() == RuleKind::kNone) continue;
    ++from_tables;
    const UnwindRule truth = RuleByStepping(place);
    if (rule.bits() == truth.bits()) continue;
    ++differ;
    ADD_FAILURE_AT(__FILE__, __LINE__) << std::hex << place - module.bias << ": " << rule.bits() << " and not "
                                       << truth.bits();
    if (differ > 10) return;
  }
  EXPECT_GT(in_functions, 1000u);
  EXPECT_GT(from_tables, in_functions * 99 / 100);
}

TEST(CallFrames, SayWhatLibunwindSaysAllOverLibcLibstdcxxAndTheProgram) {
  ASSERT_TRUE(StartStackWalk(false));
  for (uint64_t inside : {reinterpret_cast<uint64_t>(&RefreshModules), reinterpret_cast<uint64_t>(&abort),
                          reinterpret_cast<uint64_t>(static_cast<void (*)()>(&std::terminate))}) {
    const ModuleInfo* module = FindModule(inside);
    ASSERT_NE(module, nullptr);
    ExpectTablesToSayWhatLibunwindSays(*module);
  }
}

// What libunwind itself says, from the caller of this function outwards.
__attribute__((noinline)) std::vector<uint64_t> TruthHere() {
  std::vector<uint64_t> pcs;
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  unw_init_local(&cursor, &context);
  while (unw_step(&cursor) > 0) {
    unw_word_t pc = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &pc);
    if (pc != 0) pcs.push_back(pc);
  }
  return pcs;
}

WalkedStack g_walked;

__attribute__((noinline)) std::vector<uint64_t> WalkHere() {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  WalkStack({0, FindStackEnd(here)}, &g_walked);
  std::vector<uint64_t> pcs;
  for (uint32_t i = g_walked.depth; i-- > 0;) pcs.push_back(g_walked.frames[i].key_a);  // innermost first
  return pcs;
}

// Both end in the same callers; the innermost frames differ, as they were taken in different functions.
void ExpectSameCallers(const std::vector<uint64_t>& walked, const std::vector<uint64_t>& truth, size_t at_least) {
  ASSERT_GE(truth.size(), at_least);
  ASSERT_GE(walked.size(), at_least);
  EXPECT_TRUE(
      std::equal(truth.end() - static_cast<long>(at_least), truth.end(), walked.end() - static_cast<long>(at_least)));
}

void ExpectSameAsAFreshWalk();

__attribute__((noinline)) void Recurse(int depth, std::vector<uint64_t>* walked, std::vector<uint64_t>* truth) {
  if (depth == 0 && walked == nullptr) {
    ExpectSameAsAFreshWalk();
  } else if (depth == 0) {
    *walked = WalkHere();
    *truth = TruthHere();
  } else {
    Recurse(depth - 1, walked, truth);
  }
  asm volatile("");
}

TEST(StackWalk, AgreesWithLibunwindDownToStart) {
  ASSERT_TRUE(StartStackWalk(false));
  std::vector<uint64_t> walked, truth;
  Recurse(30, &walked, &truth);
  EXPECT_FALSE(g_walked.incomplete);
  ExpectSameCallers(walked, truth, truth.size() - 1);
}

std::vector<uint64_t>*g_sort_walked, *g_sort_truth;

int Compare(const void* a, const void* b) {  // called back by libc, which keeps no frame pointers
  if (g_sort_walked->empty()) {
    *g_sort_walked = WalkHere();
    *g_sort_truth = TruthHere();
  }
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

TEST(StackWalk, CrossesCodeWithoutFramePointers) {
  ASSERT_TRUE(StartStackWalk(false));
  std::vector<uint64_t> walked, truth;
  g_sort_walked = &walked;
  g_sort_truth = &truth;
  int numbers[] = {3, 1, 2};
  qsort(numbers, 3, sizeof numbers[0], Compare);
  EXPECT_FALSE(g_walked.incomplete);
  ExpectSameCallers(walked, truth, truth.size() - 1);
}

constexpr size_t kOtherStackBytes = 256 * 1024;
alignas(64) char g_other_stack[kOtherStackBytes];
StackBounds g_own;  // the stack of the test

__attribute__((noinline)) void WalkOnTheOtherStack() {
  StackBounds bounds = {0, reinterpret_cast<uint64_t>(g_other_stack) + kOtherStackBytes};
  bounds.own_low = g_own.low;
  bounds.own_high = g_own.high;
  WalkStack(bounds, &g_walked);
}

StackBounds OwnBounds() {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  constexpr uint64_t kBelow = 1 << 20;
  return {here - kBelow, FindStackEnd(here)};
}

TEST(StackWalk, EndsWhereAFiberBegan) {
  ASSERT_TRUE(StartStackWalk(false));
  g_own = OwnBounds();
  ucontext_t fiber, back;
  getcontext(&fiber);
  fiber.uc_stack = {g_other_stack, 0, kOtherStackBytes};
  fiber.uc_link = &back;
  makecontext(&fiber, WalkOnTheOtherStack, 0);
  swapcontext(&back, &fiber);
  EXPECT_FALSE(g_walked.incomplete);
  EXPECT_GE(g_walked.depth, 1u);
}

void HandleOnTheOtherStack(int) { WalkOnTheOtherStack(); }

TEST(StackWalk, GoesOnWhereASignalOnAnotherStackInterrupted) {
  ASSERT_TRUE(StartStackWalk(false));
  g_own = OwnBounds();
  const stack_t other = {g_other_stack, 0, kOtherStackBytes};
  stack_t before;
  ASSERT_EQ(sigaltstack(&other, &before), 0);
  struct sigaction action = {}, old_action;
  action.sa_handler = HandleOnTheOtherStack;
  action.sa_flags = SA_ONSTACK;
  ASSERT_EQ(sigaction(SIGUSR2, &action, &old_action), 0);
  raise(SIGUSR2);
  sigaction(SIGUSR2, &old_action, nullptr);
  sigaltstack(&before, nullptr);
  EXPECT_FALSE(g_walked.incomplete);
  const std::vector<uint64_t> truth = TruthHere();
  std::vector<uint64_t> walked;
  for (uint32_t i = g_walked.depth; i-- > 0;) walked.push_back(g_walked.frames[i].key_a);
  ExpectSameCallers(walked, truth, truth.size() - 1);
}

TEST(StackWalk, CutsADeepStackInTheMiddle) {
  ASSERT_TRUE(StartStackWalk(false));
  std::vector<uint64_t> walked, truth;
  Recurse(3000, &walked, &truth);
  EXPECT_TRUE(g_walked.truncated);
  EXPECT_FALSE(g_walked.incomplete);
  ASSERT_EQ(g_walked.depth, kMaxDepth);
  const WalkedFrame& marker = g_walked.frames[kMaxDepth - 1 - kMaxDepth / 2];
  EXPECT_EQ(marker.type, WalkedType::kMarker);
  EXPECT_EQ(marker.key_a, static_cast<uint64_t>(::nodeleak::recording::MarkerId::kTruncated));
  ExpectSameCallers(walked, truth, 200);  // the outermost part is there, in order
}

TEST(StackWalk, SameStackSameHashOtherStackOtherHash) {
  ASSERT_TRUE(StartStackWalk(false));
  uint64_t hashes[2];
  for (uint64_t& hash : hashes) {
    WalkHere();
    hash = g_walked.hash;
  }
  EXPECT_EQ(hashes[0], hashes[1]);
  WalkHere();
  EXPECT_NE(hashes[0], g_walked.hash);
}

// Walks the same stack twice from the same call, once with what is remembered of all walks before and once without.
WalkedStack g_remembering, g_fresh;
int g_compared;

__attribute__((noinline)) void WalkInTurn(WalkedStack* const* stacks) {
  static const uint64_t end = FindStackEnd(reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
  volatile int count = 2;  // one call, not the two of an unrolled loop
  for (int i = 0; i < count; ++i) WalkStack({0, end}, stacks[i]);
}

__attribute__((noinline)) void ExpectSameAsAFreshWalk() {
  WalkedStack* const both[] = {&g_remembering, &g_fresh};
  g_fresh.remembered = 0;
  WalkInTurn(both);
  ++g_compared;
  ASSERT_EQ(g_remembering.depth, g_fresh.depth);
  EXPECT_EQ(g_remembering.hash, g_fresh.hash);
  EXPECT_EQ(g_remembering.incomplete, g_fresh.incomplete);
  EXPECT_EQ(g_remembering.truncated, g_fresh.truncated);
  for (uint32_t i = 0; i < g_fresh.depth; ++i) ASSERT_EQ(g_remembering.frames[i].key_a, g_fresh.frames[i].key_a) << i;
}

// Stacks found without a walk are those that a walk finds; each is known by its place in g_hashes.
auto g_known = std::make_unique<KnownStacks>();
std::vector<uint64_t> g_hashes;
int g_found;

__attribute__((noinline)) void ExpectKnownAsWalked() {
  const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  static const uint64_t end = FindStackEnd(here);
  const StackBounds bounds = {here, end};
  const WalkRegisters caller = FindCaller(here, bounds);
  const uint32_t known = g_known->Find(caller, end);
  g_fresh.remembered = 0;
  WalkStack(caller, bounds, &g_fresh);
  if (known != recording::kNoIndex) {
    ++g_found;
    ASSERT_LT(known, g_hashes.size());
    EXPECT_EQ(g_hashes[known], g_fresh.hash);
    return;
  }
  g_known->Remember(caller, g_fresh, static_cast<uint32_t>(g_hashes.size()));
  g_hashes.push_back(g_fresh.hash);
}

// A tree of calls in which equal stack addresses are held by now one and now another function.
void Climb(int depth, uint64_t* random);
int CompareAndClimb(const void* a, const void*) {
  auto* state = *static_cast<uint64_t* const*>(a);
  if (*state % 3 == 0) Climb(static_cast<int>(*state % 7), state);
  return 0;
}
__attribute__((noinline)) void ClimbPlain(int depth, uint64_t* random) {
  Climb(depth, random);
  asm volatile("");
}
__attribute__((noinline)) void ClimbWide(int depth, uint64_t* random) {
  volatile char room[144] = {};
  Climb(depth, random);
  asm volatile("" ::"r"(room[7]));
}
__attribute__((noinline)) void ClimbThroughLibc(int depth, uint64_t* random) {
  uint64_t* pair[] = {random, random};
  if (depth % 2 == 0) qsort(pair, 2, sizeof pair[0], CompareAndClimb);
  Climb(depth, random);
  asm volatile("");
}
__attribute__((noinline)) void Climb(int depth, uint64_t* random) {
  *random = *random * 6364136223846793005u + 1442695040888963407u;
  ExpectSameAsAFreshWalk();
  ExpectKnownAsWalked();
  if (depth <= 0 || ::testing::Test::HasFatalFailure()) return;
  void (*const next[])(int, uint64_t*) = {ClimbPlain, ClimbWide, ClimbThroughLibc};
  for (uint32_t i = 0; i < 1 + (*random >> 40) % 3; ++i) next[(*random >> (33 + i)) % 3](depth - 1, random);
  asm volatile("");
}

TEST(StackWalk, WhatIsRememberedIsWhatAFreshWalkFinds) {
  ASSERT_TRUE(StartStackWalk(false));
  uint64_t random = 20021;
  for (int i = 0; i < 100; ++i) Climb(9, &random);
  Recurse(600, nullptr, nullptr);  // deeper than what is kept
  Climb(5, &random);
  EXPECT_GT(g_compared, 1000);
  EXPECT_GT(g_found, 100);
}

// The same call again and again: walked, then found, until what it was found by may have changed.
TEST(KnownStacks, ForgetsWithTheEpochAndTheOwner) {
  ASSERT_TRUE(StartStackWalk(false));
  volatile int count = 6;  // one call in a loop that is not unrolled
  for (int calls = 0; calls < count; ++calls) {
    const int found_before = g_found;
    if (calls == 2) ForgetUnwindRules();
    if (calls == 4) g_known->Forget();
    ExpectKnownAsWalked();
    EXPECT_EQ(g_found - found_before, calls % 2) << calls;
  }
}

TEST(StackWalk, RemembersNothingOfCodeThatWasUnloaded) {
  ASSERT_TRUE(StartStackWalk(false));
  ExpectSameAsAFreshWalk();
  ASSERT_GT(g_remembering.remembered, 0u);
  const uint32_t epoch = g_remembering.walk_epoch;
  ForgetUnwindRules();
  ExpectSameAsAFreshWalk();
  EXPECT_NE(g_remembering.walk_epoch, epoch);
}

}  // namespace
}  // namespace nodeleak::preload
