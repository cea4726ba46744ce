#include "tracer/remote_call.h"

#include <signal.h>
#include <string.h>

#include <algorithm>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tracer/proc_files.h"
#include "tracer/remote_unwind.h"
#include "tracer/test_point.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kMinDataBytes = 640;
constexpr milliseconds kEarlierCallLimit(10'000);

bool IsFault(int signal) {
  constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE, SIGTRAP};
  return std::find(std::begin(kFaults), std::end(kFaults), signal) != std::end(kFaults);
}

RemoteRange SlackBehind(const RemoteObject& object, const Elf64_Phdr& segment) {
  const uint64_t end = ToNumber(object.Segment(segment).end);
  const uint64_t start = (end + 63) & ~uint64_t{63};
  return {static_cast<RemoteAddress>(start), static_cast<RemoteAddress>((end + kPageBytes - 1) & ~(kPageBytes - 1))};
}

StubRoom FindRoom(const RemoteObjects& objects) {
  StubRoom room;
  for (const RemoteObject& object : objects.all()) {
    // The dynamic linker's first allocator lives in its own slack.
    if (absl::StartsWith(object.BaseName(), "ld-linux") || absl::StartsWith(object.BaseName(), "linux-vdso")) continue;
    for (const Elf64_Phdr& segment : object.segments) {
      if (segment.p_type != PT_LOAD) continue;
      const RemoteRange slack = SlackBehind(object, segment);
      if (ToNumber(slack.start) >= ToNumber(slack.end)) continue;
      if ((segment.p_flags & PF_X) != 0 && slack.bytes() > room.code.bytes()) room.code = slack;
      if ((segment.p_flags & PF_W) != 0 && slack.bytes() > room.data.bytes()) room.data = slack;
    }
  }
  return room;
}

}  // namespace

absl::StatusOr<RemoteCaller> RemoteCaller::Create(const RemoteMemory& memory, const RemoteObjects& objects,
                                                  const ShimInProcess* shim) {
  const StubRoom room = FindRoom(objects);
  if (room.data.bytes() < kMinDataBytes || room.code.bytes() == 0)
    return absl::FailedPreconditionError("no unused bytes for a call are left in the pages of its libraries");
  return RemoteCaller(memory, objects, shim, room);
}

// A tracer that was killed may have left a call that still runs: its code lies where ours would go. A thread that does
// not stop may be in it.
bool RemoteCaller::IsInRoom(const RemoteMailbox::Content& call) const {
  for (pid_t id : ReadThreadIds(memory_->pid())) {
    if (ReadInnermostThreadId(memory_->pid(), id) != call.thread) continue;
    absl::StatusOr<TracedThread> thread = TracedThread::Seize(id);
    if (!thread.ok()) return !absl::IsNotFound(thread.status());
    thread->Interrupt();
    constexpr milliseconds kPatience(200);
    const TracedThread::Stop stop = thread->AwaitStop(kPatience);
    return stop == TracedThread::Stop::kStopped ? IsInRoom(*thread, call) : stop == TracedThread::Stop::kTimeout;
  }
  return false;
}

// Runs the stub, or will return into it from what it called or from a signal handler. A call that is over leaves words
// on the stack that look like that, below what a thread that went deeper since has not written to: where the stub is
// about to begin, or has done its calls, the unwind tables decide.
bool RemoteCaller::IsInRoom(const TracedThread& stopped, const RemoteMailbox::Content& call) const {
  constexpr size_t kWords = 8192, kMostWords = 128 * 1024;
  constexpr size_t kBelievableFrames = 3;
  const absl::StatusOr<user_regs_struct> registers = stopped.ReadRegisters();
  if (!registers.ok()) return false;
  if (room_.code.Contains(registers->rip)) return true;
  const uint64_t below = (call.stack - registers->rsp) / sizeof(uint64_t);
  // A handler may have a stack of its own.
  const size_t count = call.stack > registers->rsp && below < kMostWords ? below : kWords;
  const std::vector<uint64_t> words = memory_->ReadWords(static_cast<RemoteAddress>(registers->rsp), count);
  if (std::none_of(words.begin(), words.end(), [this](uint64_t word) { return room_.code.Contains(word); }))
    return false;
  if (call.state == RemoteMailbox::kRunning) return true;
  const std::vector<RemoteFrame> frames = UnwindStack(*memory_, *objects_, *registers);
  return frames.size() < kBelievableFrames ||
         std::any_of(frames.begin(), frames.end(),
                     [this](const RemoteFrame& frame) { return room_.code.Contains(frame.pc); });
}

absl::Status RemoteCaller::AwaitEarlierCall() const {
  const auto begin = steady_clock::now();
  const auto is_call = [](uint64_t state) {
    return state == RemoteMailbox::kPrepared || state == RemoteMailbox::kRunning || state == RemoteMailbox::kDone;
  };
  RemoteMailbox::Content call;
  while (memory_->TryRead(room_.data.start, &call, sizeof call) && is_call(call.state)) {
    if (!IsInRoom(call)) return absl::OkStatus();  // it never ran, or has come back, or its thread has ended
    if (steady_clock::now() - begin > kEarlierCallLimit)
      return absl::UnavailableError(
          "a call of an earlier nodeleak, which was killed, still runs there; try again later");
    // No thread is held meanwhile: the call may be waiting for it.
    std::this_thread::sleep_for(milliseconds(20));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> RemoteCaller::Call(const std::vector<RemoteStep>& steps, Borrow which,
                                                         milliseconds patience, milliseconds limit) const {
  if (absl::Status status = AwaitEarlierCall(); !status.ok()) return status;
  absl::StatusOr<BorrowedThread> borrowed = BorrowThread(*memory_, *objects_, unsafe_, which, patience);
  if (!borrowed.ok()) return borrowed.status();
  if (absl::Status status = Run(&*borrowed, steps, limit); !status.ok()) return status;
  std::vector<uint64_t> results(steps.size());
  const RemoteMailbox mailbox = {room_.data.start};
  if (absl::Status status = memory_->Read(mailbox.Result(0), results.data(), results.size() * sizeof(uint64_t));
      !status.ok())
    return status;
  return results;
}

absl::Status RemoteCaller::Run(BorrowedThread* borrowed, const std::vector<RemoteStep>& steps,
                               milliseconds limit) const {
  const RemoteMailbox mailbox = {room_.data.start};
  const std::vector<uint8_t> stub = BuildStub(borrowed->registers, steps, mailbox);
  if (stub.size() > room_.code.bytes() || steps.size() > kMaxRemoteSteps)
    return absl::FailedPreconditionError("the unused bytes in the pages of its libraries are too few for a call");
  std::vector<uint8_t> before(stub.size());
  if (absl::Status status = memory_->Read(room_.code.start, before.data(), before.size()); !status.ok()) return status;
  RemoteMailbox::Content call = {};
  call.state = RemoteMailbox::kPrepared;
  call.thread = ReadInnermostThreadId(memory_->pid(), borrowed->thread.id());
  call.stack = borrowed->registers.rsp;
  if (absl::Status status = memory_->WriteValue(mailbox.address, call); !status.ok()) return status;
  if (absl::Status status = memory_->Write(room_.code.start, stub.data(), stub.size()); !status.ok()) return status;

  ReachTestPoint("before registers");
  user_regs_struct registers = borrowed->registers;
  registers.rip = ToNumber(room_.code.start);
  registers.rsp = StubStack(borrowed->registers);
  registers.rax = 0;
  registers.orig_rax = ~0ull;  // no system call to restart: the stub does that
  constexpr uint64_t kTrapAndDirectionFlags = 0x500;
  registers.eflags &= ~kTrapAndDirectionFlags;
  if (absl::Status status = borrowed->thread.WriteRegisters(registers); !status.ok()) return status;
  ReachTestPoint("after registers");
  if (absl::Status status = borrowed->thread.Continue(0); !status.ok()) return status;
  ReachTestPoint("during call");
  if (absl::Status status = AwaitDone(borrowed, limit); !status.ok()) return status;
  ReachTestPoint("call done");
  call.state = RemoteMailbox::kDone;
  if (!HasLeftRoom(borrowed, call)) return absl::OkStatus();  // the code stays, and the next call looks first
  if (absl::Status status = memory_->Write(room_.code.start, before.data(), before.size()); !status.ok()) return status;
  return memory_->WriteValue(mailbox.address, RemoteMailbox::kFree);
}

// Until the stub has written its last word; passes signals on meanwhile.
absl::Status RemoteCaller::AwaitDone(BorrowedThread* borrowed, milliseconds limit) const {
  const auto begin = steady_clock::now();
  while (steady_clock::now() - begin < limit) {
    int signal = 0;
    const TracedThread::Event event = borrowed->thread.Poll(&signal);
    if (event == TracedThread::Event::kGroupStop) {
      borrowed->thread.StayStopped();
    } else if (event == TracedThread::Event::kSignal && IsFault(signal)) {
      const absl::StatusOr<user_regs_struct> at = borrowed->thread.ReadRegisters();
      // It stands still: in a moment this is no call any more.
      if (absl::Status status = memory_->WriteValue(room_.data.start, RemoteMailbox::kPrepared); !status.ok())
        return status;
      if (absl::Status status = borrowed->thread.WriteRegisters(borrowed->registers); !status.ok()) return status;
      return absl::InternalError(absl::StrFormat("a call in it raised %s at %#x; the thread was put back",
                                                 strsignal(signal), at.ok() ? at->rip : 0));
    } else if (event == TracedThread::Event::kSignal || event == TracedThread::Event::kOther) {
      const int passed_on = event == TracedThread::Event::kSignal ? signal : 0;
      if (absl::Status status = borrowed->thread.Continue(passed_on); !status.ok()) return status;
    }
    uint64_t done = 0;
    if (!memory_->TryRead(room_.data.start, &done, sizeof done))
      return absl::UnavailableError("it ended during a call");
    if (done == RemoteMailbox::kDone) return absl::OkStatus();
    if (event == TracedThread::Event::kEnded) return absl::UnavailableError("the borrowed thread ended during a call");
    std::this_thread::sleep_for(microseconds(50));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("a call in it has not returned within ", limit.count(), " ms; it goes on by itself"));
}

// The stub has done its calls but may still be putting registers back, interrupted by a signal handler even.
bool RemoteCaller::HasLeftRoom(BorrowedThread* borrowed, const RemoteMailbox::Content& call) const {
  constexpr milliseconds kPatience(500);
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    borrowed->thread.Interrupt();
    const TracedThread::Stop stop = borrowed->thread.AwaitStop(kPatience);
    if (stop != TracedThread::Stop::kStopped) return stop == TracedThread::Stop::kEnded;
    if (!IsInRoom(borrowed->thread, call)) {
      borrowed->thread.LetGo();
      return true;
    }
    if (!borrowed->thread.Continue(borrowed->thread.pending_signal()).ok()) return true;
    std::this_thread::sleep_for(microseconds(20 + i * 50));
  }
  return false;
}

}  // namespace nodeleak::tracer
