// Shared by the inside and the outside, as layout.h is, which includes it: fixed-width structs without pointers,
// nothing else. Requests to a recorded process that runs, and what a full collection freed.
#pragma once

#include <stdint.h>

namespace nodeleak::recording {

// A request from outside. Whoever asks holds an exclusive flock on the recording from before the request until
// it has read the answer, writes `kind` and `argument`, counts `request` up, and rings the bell. The process's watcher
// thread sleeps on `bell`.
enum class MailboxRequest : uint32_t { kNone = 0, kGc = 1, kStop = 2, kCheckpoint = 3 };
enum class MailboxResult : uint32_t {
  kDone = 0,           // kGc: what became of each isolate is in kGcAnswers
  kUnknownKind = 1,    // of an older process
  kNoV8 = 2,           // none that the process knows
  kNoForcedGc = 3,     // V8 does not export it
  kNoMainIsolate = 4,  // not yet, or no longer
  kNoRoom = 5,         // in the recording, for the answer
  kEnding = 6,         // its own collections before the picture at the end are under way
};
struct Mailbox {
  uint32_t bell;      // counts up; a shared futex
  uint32_t request;   // counts up: one more is one more request
  uint32_t kind;      // MailboxRequest
  uint32_t taken;     // equals request once the process has begun with it
  uint32_t answered;  // equals request when done; a shared futex
  uint32_t result;    // MailboxResult
  uint64_t argument;  // kGc: milliseconds that an isolate has to come to a safe point; 0: kDefaultReachMs
  uint64_t answered_ns;
};
static_assert(sizeof(Mailbox) == 40);
inline constexpr uint32_t kDefaultReachMs = 3000;

// What a full collection that we forced has freed of the memory that was outstanding when it began. In two
// parts: garbage went in the first collection itself; pending went on the turns of the event loop after it, where
// finalizers run, or in the second collection.
enum class ConfirmationKind : uint32_t { kNone = 0, kRequested = 1, kAtEnd = 2 };
struct Confirmation {
  uint32_t number;      // counts up; goes with FreedByGc and GcAnswer
  uint32_t kind;        // ConfirmationKind
  uint32_t birth_tick;  // blocks that are younger do not count
  uint32_t turns;       // kAtEnd: of the event loop between the collections; 0: this way of ending allows none
  uint64_t begun_ns, ended_ns;
  uint64_t live_bytes_before, live_blocks_before;  // malloc blocks
};
static_assert(sizeof(Confirmation) == 48);

// By the stack that allocated what was freed.
struct FreedByGc {
  uint64_t garbage_bytes, garbage_blocks;
  uint64_t pending_bytes, pending_blocks;
};
static_assert(sizeof(FreedByGc) == 32);

// What became of one isolate in a requested collection.
enum class GcAnswerState : uint32_t {
  kAsked = 0,  // not there yet
  kDone = 1,   // collected, at least two turns of its event loop, collected again
  kOnce = 2,   // collected; its event loop did not turn after that: JavaScript runs, or waits in a synchronous call
  kNotReached = 3,  // came to no safe point in time: runs native code, or is blocked
  kGone = 4,        // ended meanwhile
};
struct GcAnswer {
  uint32_t isolate;       // Isolate index
  uint32_t state;         // GcAnswerState
  uint32_t turns;         // of its event loop between the collections
  uint32_t by_interrupt;  // 1: the first collection interrupted JavaScript
  uint64_t waited_ns;     // from the request to the first collection
  uint64_t first_pause_ns, second_pause_ns;
  uint64_t ended_ns;
};
static_assert(sizeof(GcAnswer) == 48);

}  // namespace nodeleak::recording
