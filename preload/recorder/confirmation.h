// Runs inside node, on any thread, possibly inside free. Never allocates outside the recording, waits or throws.
//
// What a full collection that we forced frees of the memory that was outstanding when it began, by the stack that
// allocated it: exact, because every free passes us and says when its block was born. One confirmation at a time; a
// later one takes the place of an earlier one.
#pragma once

#include <stdint.h>

#include "preload/base/guard.h"
#include "recording/layout.h"

namespace nodeleak::preload {

// What the frees of a thread mean just now. Frees of threads without an isolate (V8 sweeps array buffers there) count
// as garbage while some thread is in kGarbage, and not otherwise.
enum class FreePhase : uint32_t {
  kOrdinary = 0,  // the program's own
  kGarbage = 1,   // inside the first collection
  kPending = 2,   // on the turns of the loop after it, and inside the second one
};

// Any thread. False: the recording has no room for it, or it is requested while the one of the end is under way.
bool BeginConfirmation(recording::ConfirmationKind kind);
// Of this kind; a later one of another kind goes on. `turns`: of the event loop, see recording::Confirmation.
void EndConfirmation(recording::ConfirmationKind kind, uint32_t turns);
void ForgetConfirmation();  // the recording goes
bool IsConfirmingEnd();     // ConfirmationKind::kAtEnd is under way

// Of the calling thread, until it says otherwise or the confirmation ends.
void SetFreePhase(FreePhase phase);

extern uint32_t g_confirmation __attribute__((visibility("hidden")));  // its number; 0: none

// Called for every free, of memory known or not. The calling thread's count tells whether anything was freed while a
// confirmation is going on.
inline bool IsConfirming() { return __builtin_expect(__atomic_load_n(&g_confirmation, __ATOMIC_RELAXED) != 0, 0); }
inline void SeeFree() {
  if (IsConfirming()) ++t_locals.frees_seen;
}

// Called for everything known that is freed; one load unless a confirmation is going on.
void CountConfirmed(uint32_t stack, uint32_t birth_tick, uint64_t bytes, uint64_t blocks);
inline void CountIfConfirmed(uint32_t stack, uint32_t birth_tick, uint64_t bytes, uint64_t blocks) {
  if (IsConfirming()) CountConfirmed(stack, birth_tick, bytes, blocks);
}

}  // namespace nodeleak::preload
