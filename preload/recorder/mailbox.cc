// Inside node, on the watcher thread: requests from outside, one at a time (recording::Mailbox). Nothing here waits;
// what takes time is looked after again and again.
#include "preload/base/futex.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/recorder_state.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {
namespace {

using recording::ConfirmationKind;
using recording::Mailbox;
using recording::MailboxRequest;
using recording::MailboxResult;

constexpr uint32_t kNoHurryMs = UINT32_MAX;

bool g_collecting;  // a kGc request is under way

Mailbox& mailbox() { return g_recorder.file.header()->mailbox; }

void Answer(MailboxResult result) {
  Mailbox& box = mailbox();
  box.result = static_cast<uint32_t>(result);
  box.answered_ns = NanosecondsSinceStart();
  __atomic_store_n(&box.answered, box.taken, __ATOMIC_RELEASE);
  FutexWake(&box.answered, FutexScope::kShared);
}

void BeginCollections() {
  constexpr uint64_t kLongestReachMs = 600'000;
  uint64_t reach_ms = mailbox().argument;
  if (reach_ms == 0 || reach_ms > kLongestReachMs) reach_ms = recording::kDefaultReachMs;
  g_recorder.gc_answers.Publish(0);
  if (!BeginConfirmation(ConfirmationKind::kRequested)) {
    return Answer(IsConfirmingEnd() ? MailboxResult::kEnding : MailboxResult::kNoRoom);
  }
  const MailboxResult result = v8::AskForCollections(static_cast<uint32_t>(reach_ms));
  g_collecting = result == MailboxResult::kDone;
  if (g_collecting) return;
  EndConfirmation(ConfirmationKind::kRequested, 0);
  Answer(result);
}

void Stop() {
  Freeze(recording::FreezeReason::kDetach);
  Answer(MailboxResult::kDone);
}

void MakeCheckpoint() {
  SampleNow();
  Answer(MailboxResult::kDone);
}

struct RequestRow {
  MailboxRequest kind;
  void (*begin)();
};
constexpr RequestRow kRequests[] = {
    {MailboxRequest::kGc, BeginCollections},
    {MailboxRequest::kStop, Stop},
    {MailboxRequest::kCheckpoint, MakeCheckpoint},
};

void Begin() {
  const uint32_t kind = __atomic_load_n(&mailbox().kind, __ATOMIC_RELAXED);
  for (const RequestRow& row : kRequests)
    if (kind == static_cast<uint32_t>(row.kind)) return row.begin();
  Answer(MailboxResult::kUnknownKind);
}

}  // namespace

void ForgetRequests() { g_collecting = false; }

uint32_t ServeMailbox() {
  if (!g_collecting) {
    const uint32_t request = __atomic_load_n(&mailbox().request, __ATOMIC_ACQUIRE);
    if (request == mailbox().taken) return kNoHurryMs;
    __atomic_store_n(&mailbox().taken, request, __ATOMIC_RELEASE);
    Begin();
  }
  const uint32_t ms = g_collecting ? v8::LookAfterCollections() : 0;
  if (ms != 0) return ms;
  if (g_collecting) {
    g_collecting = false;
    EndConfirmation(ConfirmationKind::kRequested, 0);
    UpdateTotals();
    Answer(MailboxResult::kDone);
  }
  return kNoHurryMs;
}

}  // namespace nodeleak::preload
