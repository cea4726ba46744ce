// Runs inside node, on any thread. The rare libc calls by which node's own threads pass us: the event loop's poll is
// the safe point, and opening a file or asking for the directory are where a new isolate is met before its first poll.
// When nothing is recorded, or the thread is known, each costs two loads.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "preload/base/system.h"
#include "preload/hooks/process_originals.h"
#include "preload/v8/runtime.h"

using nodeleak::preload::process_originals;
using nodeleak::preload::v8::kPollSliceMs;
using nodeleak::preload::v8::SafePoint;
using nodeleak::preload::v8::SeenAtLibcCall;

namespace {

int MillisecondsSince(uint64_t start_ns) {
  return static_cast<int>((nodeleak::preload::CoarseMonotonicNanoseconds() - start_ns) / 1'000'000);
}

// Calls wait(milliseconds) for `timeout_ms` in all, by and by, with a look at requests in between.
template <typename Wait>
int WaitInSlices(int epoll, int timeout_ms, Wait wait) {
  const uint64_t start_ns = nodeleak::preload::CoarseMonotonicNanoseconds();
  int left = timeout_ms;
  while (left < 0 || left > kPollSliceMs) {
    int result = wait(kPollSliceMs);
    if (result != 0) return result;
    SafePoint(epoll, left, true);
    if (timeout_ms >= 0) left = timeout_ms - MillisecondsSince(start_ns);
    if (timeout_ms >= 0 && left < 0) left = 0;
  }
  return wait(left);
}

// The thread's last poll was interrupted by a signal: libuv polls again, without a turn of the loop.
__thread bool t_interrupted __attribute__((tls_model("initial-exec")));

bool TakeInterrupted() {
  const bool interrupted = t_interrupted;
  t_interrupted = false;
  return interrupted;
}

template <typename Wait>
int Poll(int epoll, int timeout_ms, Wait wait) {
  bool in_slices = SafePoint(epoll, timeout_ms, TakeInterrupted());
  int result = in_slices ? WaitInSlices(epoll, timeout_ms, wait) : wait(timeout_ms);
  t_interrupted = result < 0 && errno == EINTR;
  return result;
}

}  // namespace

NODELEAK_HOOK int epoll_wait(int epoll, epoll_event* events, int room, int timeout_ms) {
  return Poll(epoll, timeout_ms, [=](int ms) { return process_originals().epoll_wait(epoll, events, room, ms); });
}

NODELEAK_HOOK int epoll_pwait(int epoll, epoll_event* events, int room, int timeout_ms, const sigset_t* mask) {
  return Poll(epoll, timeout_ms,
              [=](int ms) { return process_originals().epoll_pwait(epoll, events, room, ms, mask); });
}

NODELEAK_HOOK int epoll_pwait2(int epoll, epoll_event* events, int room, const timespec* timeout,
                               const sigset_t* mask) {
  bool returns_at_once = timeout != nullptr && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  SafePoint(epoll, returns_at_once ? 0 : -1, TakeInterrupted());
  if (process_originals().epoll_pwait2 == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  return process_originals().epoll_pwait2(epoll, events, room, timeout, mask);
}

// The mode is there only for calls that may create a file.
#define NODELEAK_MODE_ARGUMENT(flags)                               \
  mode_t mode = 0;                                                  \
  if (((flags)&O_CREAT) != 0 || ((flags)&O_TMPFILE) == O_TMPFILE) { \
    va_list rest;                                                   \
    va_start(rest, flags);                                          \
    mode = va_arg(rest, mode_t);                                    \
    va_end(rest);                                                   \
  }

NODELEAK_HOOK int open(const char* path, int flags, ...) {
  NODELEAK_MODE_ARGUMENT(flags)
  SeenAtLibcCall();
  return process_originals().open(path, flags, mode);
}

NODELEAK_HOOK int open64(const char* path, int flags, ...) {
  NODELEAK_MODE_ARGUMENT(flags)
  SeenAtLibcCall();
  return process_originals().open64(path, flags, mode);
}

NODELEAK_HOOK char* getcwd(char* buffer, size_t bytes) noexcept {
  SeenAtLibcCall();
  return process_originals().getcwd(buffer, bytes);
}

NODELEAK_HOOK ssize_t readlink(const char* path, char* buffer, size_t bytes) noexcept {
  SeenAtLibcCall();
  return process_originals().readlink(path, buffer, bytes);
}
