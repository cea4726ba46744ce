#include "preload/recorder/confirmation.h"

#include <string.h>

#include "preload/base/guard.h"
#include "preload/recorder/recorder_state.h"

namespace nodeleak::preload {

using recording::FreedByGc;

uint32_t g_confirmation;

namespace {

SpinLock g_lock;           // beginning and ending
uint32_t g_in_collection;  // threads in FreePhase::kGarbage

// A thread's phase goes with the confirmation that it was set for: one that was given up does not leak into the next.
constexpr uint32_t kPhaseBits = 2;
uint32_t Tag(uint32_t number, FreePhase phase) { return number << kPhaseBits | static_cast<uint32_t>(phase); }
FreePhase PhaseOf(uint32_t tag) { return static_cast<FreePhase>(tag & ((1u << kPhaseBits) - 1)); }

FreePhase PhaseOfThisThread(uint32_t number) {
  const uint32_t tag = t_locals.free_phase;
  if (tag >> kPhaseBits == Tag(number, FreePhase::kOrdinary) >> kPhaseBits) return PhaseOf(tag);
  const bool background = t_locals.isolate_generation == 0;
  const bool collecting = __atomic_load_n(&g_in_collection, __ATOMIC_RELAXED) != 0;
  return background && collecting ? FreePhase::kGarbage : FreePhase::kOrdinary;
}

bool MakeRoom() {
  AppendTable<FreedByGc>& freed = g_recorder.freed_by_gc;
  const uint64_t stacks = g_recorder.stacks.count();
  freed.Publish(0);
  if (!freed.Reserve(stacks)) return false;
  for (uint64_t i = 0; i < stacks; ++i) freed[i] = {};
  freed.Publish(stacks);
  return true;
}

}  // namespace

bool BeginConfirmation(recording::ConfirmationKind kind) {
  if (!IsRecording() || !g_lock.TryLock()) return false;
  if (kind == recording::ConfirmationKind::kRequested && IsConfirmingEnd()) {
    g_lock.Unlock();
    return false;
  }
  __atomic_store_n(&g_confirmation, 0u, __ATOMIC_RELEASE);
  const bool room = MakeRoom();
  if (room) {
    UpdateTotals();
    recording::Header* header = g_recorder.file.header();
    recording::Confirmation& confirmation = header->confirmation;
    confirmation = {.number = confirmation.number + 1,
                    .kind = static_cast<uint32_t>(kind),
                    .birth_tick = TicksSinceStart(),
                    .turns = 0,
                    .begun_ns = NanosecondsSinceStart(),
                    .ended_ns = 0,
                    .live_bytes_before = header->live_bytes,
                    .live_blocks_before = header->live_blocks};
    __atomic_store_n(&g_confirmation, confirmation.number, __ATOMIC_RELEASE);
  }
  g_lock.Unlock();
  return room;
}

void EndConfirmation(recording::ConfirmationKind kind, uint32_t turns) {
  if (!IsRecording() || !g_lock.TryLock()) return;
  recording::Confirmation& confirmation = g_recorder.file.header()->confirmation;
  if (g_confirmation != 0 && confirmation.kind == static_cast<uint32_t>(kind)) {
    confirmation.turns = turns;
    confirmation.ended_ns = NanosecondsSinceStart();
    __atomic_store_n(&g_confirmation, 0u, __ATOMIC_RELEASE);
  }
  g_lock.Unlock();
}

bool IsConfirmingEnd() {
  return __atomic_load_n(&g_confirmation, __ATOMIC_ACQUIRE) != 0 &&
         g_recorder.file.header()->confirmation.kind == static_cast<uint32_t>(recording::ConfirmationKind::kAtEnd);
}

void ForgetConfirmation() { __atomic_store_n(&g_confirmation, 0u, __ATOMIC_RELEASE); }

void SetFreePhase(FreePhase phase) {
  const bool was_collecting = PhaseOf(t_locals.free_phase) == FreePhase::kGarbage;
  const bool collecting = phase == FreePhase::kGarbage;
  if (collecting && !was_collecting) __atomic_fetch_add(&g_in_collection, 1u, __ATOMIC_RELAXED);
  if (!collecting && was_collecting) __atomic_fetch_sub(&g_in_collection, 1u, __ATOMIC_RELAXED);
  t_locals.free_phase = Tag(__atomic_load_n(&g_confirmation, __ATOMIC_RELAXED), phase);
}

void CountConfirmed(uint32_t stack, uint32_t birth_tick, uint64_t bytes, uint64_t blocks) {
  const uint32_t number = __atomic_load_n(&g_confirmation, __ATOMIC_ACQUIRE);
  if (number == 0 || birth_tick > g_recorder.file.header()->confirmation.birth_tick) return;
  const FreePhase phase = PhaseOfThisThread(number);
  if (phase == FreePhase::kOrdinary || stack >= g_recorder.freed_by_gc.count()) return;
  FreedByGc& freed = g_recorder.freed_by_gc[stack];
  const bool garbage = phase == FreePhase::kGarbage;
  __atomic_fetch_add(garbage ? &freed.garbage_bytes : &freed.pending_bytes, bytes, __ATOMIC_RELAXED);
  __atomic_fetch_add(garbage ? &freed.garbage_blocks : &freed.pending_blocks, blocks, __ATOMIC_RELAXED);
}

}  // namespace nodeleak::preload
