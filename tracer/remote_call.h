// Outside. Calls functions and makes system calls in another process, on a borrowed thread. See remote_stub.h for what
// happens there, borrow_thread.h for which thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tracer/borrow_thread.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/remote_stub.h"

namespace nodeleak::tracer {

// Unused bytes at the end of the last page of a segment: where the stub and its data lie for the time of a call.
struct StubRoom {
  RemoteRange code, data;
  RemoteAddress texts() const { return data.start + kTextsAt; }  // for strings that the calls take
  uint64_t text_bytes() const { return data.bytes() - kTextsAt; }
  static constexpr uint64_t kTextsAt = 128;
  static_assert(kTextsAt >= sizeof(RemoteMailbox::Content));
};

class RemoteCaller {
 public:
  // `shim`: our own library there, nullptr before it is loaded. `memory` and `objects` must outlive the caller.
  static absl::StatusOr<RemoteCaller> Create(const RemoteMemory& memory, const RemoteObjects& objects,
                                             const ShimInProcess* shim);

  const StubRoom& room() const { return room_; }

  // Until what a tracer that was killed has set going there is done: bounded, and nothing is touched where there is
  // none.
  absl::Status AwaitEarlierCall() const;

  // The results of the steps. `patience` is for finding a thread, `limit` for the calls themselves: a call that takes
  // longer goes on by itself and its thread returns to its work. A fault (SIGSEGV...) in a call puts the thread back to
  // where it was, and is an error here.
  absl::StatusOr<std::vector<uint64_t>> Call(const std::vector<RemoteStep>& steps, Borrow which,
                                             std::chrono::milliseconds patience, std::chrono::milliseconds limit) const;

 private:
  RemoteCaller(const RemoteMemory& memory, const RemoteObjects& objects, const ShimInProcess* shim, StubRoom room)
      : memory_(&memory), objects_(&objects), unsafe_(objects, shim), room_(room) {}

  bool IsInRoom(const RemoteMailbox::Content& call) const;
  bool IsInRoom(const TracedThread& stopped, const RemoteMailbox::Content& call) const;
  absl::Status Run(BorrowedThread* borrowed, const std::vector<RemoteStep>& steps,
                   std::chrono::milliseconds limit) const;
  absl::Status AwaitDone(BorrowedThread* borrowed, std::chrono::milliseconds limit) const;
  bool HasLeftRoom(BorrowedThread* borrowed, const RemoteMailbox::Content& call) const;

  const RemoteMemory* memory_;
  const RemoteObjects* objects_;
  UnsafeCode unsafe_;
  StubRoom room_;
};

}  // namespace nodeleak::tracer
