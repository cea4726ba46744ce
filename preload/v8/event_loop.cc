#include "preload/v8/event_loop.h"

#include <errno.h>
#include <string.h>

#include "preload/base/safe_read.h"
#include "preload/base/system.h"

namespace nodeleak::preload::v8 {
namespace {

// uv_loop_t and uv_handle_t of include/uv.h and uv/unix.h: public, and the same in all of libuv 1.x on 64 bits. Proved
// all the same before it is used.
constexpr uint64_t kBackendFd = 64, kWorkAsync = 176;  // in uv_loop_t
constexpr uint64_t kHandleLoop = 8, kHandleType = 16;  // in uv_handle_t
constexpr uint32_t kUvAsync = 1;                       // UV_ASYNC

template <typename T>
bool ReadsAs(uint64_t address, T expected) {
  T value;
  return SafeRead(address, &value, sizeof value) && value == expected;
}

uint64_t WorkHandle(const EventLoop* loop) { return reinterpret_cast<uint64_t>(loop) + kWorkAsync; }

}  // namespace

void FindEventLoop(IsolateRecord* record) {
  if (!HasFeature(Feature::kEventLoop)) return;
  EventLoop* loop = symbols().get_current_event_loop(record->isolate);
  if (loop == nullptr) return;
  int fd = symbols().uv_backend_fd(loop);
  auto address = reinterpret_cast<uint64_t>(loop);
  bool as_known = ReadsAs(address + kBackendFd, fd) && ReadsAs(WorkHandle(loop) + kHandleLoop, address) &&
                  ReadsAs(WorkHandle(loop) + kHandleType, kUvAsync);
  if (!as_known) return;
  record->poll_fd = fd;
  record->loop = loop;
}

void WakeEventLoop(const IsolateRecord& record) {
  if (record.loop == nullptr) return;
  int saved_errno = errno;
  symbols().uv_async_send(reinterpret_cast<void*>(WorkHandle(record.loop)));
  errno = saved_errno;
}

}  // namespace nodeleak::preload::v8
