#include "preload/hooks/attach_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/attach_hooks.h"
#include "preload/hooks/later_links.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/process_originals.h"
#include "preload/hooks/start.h"
#include "preload/recorder/recorder_state.h"
#include "preload/v8/module.h"
#include "preload/v8/runtime.h"
#include "recording/attach_control.h"

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));  // the linker's: our own ELF header

using nodeleak::recording::AttachControl;
using nodeleak::recording::AttachRequest;
using nodeleak::recording::AttachSafePoint;
using nodeleak::recording::AttachState;

extern "C" __attribute__((visibility("default"))) AttachControl nodeleak_attach_control;
AttachControl nodeleak_attach_control = {nodeleak::recording::kAttachMagic, nodeleak::recording::kAttachVersion,
                                         sizeof(AttachControl)};

namespace nodeleak::preload {
namespace {

constexpr long kFileTickMs = 20;  // between two looks at whether somebody wants us to stop
constexpr int kFileTicks = 750;   // the tracer plans its hooks meanwhile
// Out of the way of programs that count on the lowest free number.
constexpr int kFirstDescriptor = 900;

AttachControl& Control() { return nodeleak_attach_control; }

void SetState(AttachState state) { __atomic_store_n(&Control().state, static_cast<uint32_t>(state), __ATOMIC_RELEASE); }
bool IsAsked(AttachRequest request) {
  return __atomic_load_n(&Control().request, __ATOMIC_ACQUIRE) == static_cast<uint32_t>(request);
}

// By the tracer, or by the next one, which found us waiting for one that was killed.
bool IsToldToStop() { return IsAsked(AttachRequest::kStop) || IsAsked(AttachRequest::kRelease); }

// Ours alone until it is inert again. A tracer that was killed may have left a call that comes to this late, when the
// next one has made its own: two recorders at once would unmap each other's recording.
bool Claim(uint32_t pid) {
  AttachControl& control = Control();
  uint32_t state = __atomic_load_n(&control.state, __ATOMIC_ACQUIRE);
  const auto is = [&state](AttachState other) { return state == static_cast<uint32_t>(other); };
  // A forked child has the words of its parent and none of its threads.
  if (control.pid == pid && !is(AttachState::kInert) && !is(AttachState::kFailed)) return false;
  return __atomic_compare_exchange_n(&control.state, &state, static_cast<uint32_t>(AttachState::kStarting), false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void Fail(const char* why) {
  strncpy(Control().why, why, sizeof Control().why - 1);
  Control().watcher = 0;
  SetState(AttachState::kFailed);
}

// "/proc/PID/fd/NUMBER"
void FormatDescriptorPath(uint32_t pid, uint32_t descriptor, char* to) {
  const auto put = [&to](const char* text) {
    while (*text != '\0') *to++ = *text++;
  };
  const auto put_number = [&to](uint32_t number) {
    char digits[10];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0) *to++ = digits[--count];
  };
  put("/proc/");
  put_number(pid);
  put("/fd/");
  put_number(descriptor);
  *to = '\0';
}

// A connection to the tracer: it sends the recording file over it, and its end says that the tracer is gone.
class TracerSocket {
 public:
  // Makes both ends; the tracer takes `outside` out of our descriptor table. False: *why.
  bool Open(int* outside, const char** why) {
    int ends[2];
    const long made = RawSyscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, reinterpret_cast<long>(ends));
    *why = made == -EMFILE || made == -ENFILE ? "it has too many open files"
                                              : "it may not make a socket pair (a seccomp filter?)";
    if (made != 0) return false;
    long high = RawSyscall(SYS_fcntl, ends[0], F_DUPFD_CLOEXEC, kFirstDescriptor);
    fd_ = high >= 0 ? static_cast<int>(high) : ends[0];
    if (high >= 0) RawSyscall(SYS_close, ends[0]);
    *outside = ends[1];
    struct stat status;
    if (RawSyscall(SYS_fstat, fd_, reinterpret_cast<long>(&status)) == 0) inode_ = status.st_ino;
    return true;
  }

  // The descriptor that the tracer sends; -EAGAIN: none came within a tick.
  int Receive() const {
    pollfd entry = {fd_, POLLIN, 0};
    if (RawSyscall(SYS_poll, reinterpret_cast<long>(&entry), 1, kFileTickMs) == 0) return -EAGAIN;
    char byte;
    iovec data = {&byte, 1};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    long got;
    do got = RawSyscall(SYS_recvmsg, fd_, reinterpret_cast<long>(&message), MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (got == -EINTR);
    if (got < 0) return static_cast<int>(got);
    const cmsghdr* header = got == 1 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return -EAGAIN;
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
  }

  // What the tracer offers instead: opened in its table of descriptors. The pipe takes the place of the socket. False:
  // *why.
  bool TakeOffer(const recording::AttachOffer& offer, int* file, const char** why) {
    *why = "it cannot open the recording through /proc";
    *file = OpenOf(offer.pid, offer.file, O_RDWR, S_IFREG, offer.file_inode);
    if (*file < 0) return false;
    const int pipe = OpenOf(offer.pid, offer.pipe, O_RDONLY | O_NONBLOCK, S_IFIFO, offer.pipe_inode);
    if (pipe < 0) {
      RawSyscall(SYS_close, *file);
      return false;
    }
    Close();
    const long high = RawSyscall(SYS_fcntl, pipe, F_DUPFD_CLOEXEC, kFirstDescriptor);
    fd_ = high >= 0 ? static_cast<int>(high) : pipe;
    if (high >= 0) RawSyscall(SYS_close, pipe);
    inode_ = offer.pipe_inode;
    return true;
  }

  // Sleeps until the tracer writes, is gone, or the time is over.
  enum class Waited : uint8_t { kTime, kMessage, kGone };
  Waited Wait(uint32_t ms) const {
    if (fd_ < 0) {
      timespec nap = {ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
      RawSyscall(SYS_nanosleep, reinterpret_cast<long>(&nap), 0);
      return Waited::kTime;
    }
    if (!IsOurs()) return Waited::kGone;  // the program closed it: nobody can tell us any more
    pollfd entry = {fd_, POLLIN | POLLRDHUP, 0};
    if (RawSyscall(SYS_poll, reinterpret_cast<long>(&entry), 1, ms) <= 0) return Waited::kTime;
    char byte;
    const bool message = (entry.revents & POLLIN) != 0 &&
                         RawSyscall(SYS_recvfrom, fd_, reinterpret_cast<long>(&byte), 1, MSG_DONTWAIT, 0, 0) == 1;
    return message ? Waited::kMessage : Waited::kGone;
  }

  void Close() {
    if (IsOurs()) RawSyscall(SYS_close, fd_);
    fd_ = -1;
  }

 private:
  // -1 when it is not what was announced: the tracer may have been killed since, and its pid be somebody else's.
  static int OpenOf(uint32_t pid, int descriptor, int flags, uint32_t type, uint64_t inode) {
    char path[64];
    FormatDescriptorPath(pid, static_cast<uint32_t>(descriptor), path);
    const long fd = RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), flags | O_CLOEXEC | O_NOCTTY, 0);
    if (fd < 0) return -1;
    struct stat status;
    if (RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) == 0 && status.st_ino == inode &&
        (status.st_mode & S_IFMT) == type)
      return static_cast<int>(fd);
    RawSyscall(SYS_close, fd);
    return -1;
  }
  // The program may have closed our descriptor and reused its number.
  bool IsOurs() const {
    struct stat status;
    return fd_ >= 0 && RawSyscall(SYS_fstat, fd_, reinterpret_cast<long>(&status)) == 0 && status.st_ino == inode_ &&
           (S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode));
  }

  int fd_ = -1;
  uint64_t inode_ = 0;
};
TracerSocket g_tracer;

bool ReceiveFile(int* file, const char** why) {
  int outside = -1;
  if (!g_tracer.Open(&outside, why)) return false;
  Control().file_socket = outside;
  SetState(AttachState::kWantsFile);
  *file = -1;
  *why = "the tracer did not send the recording file";
  recording::AttachOffer& offer = Control().offer;
  for (int i = 0; i < kFileTicks && *file < 0 && !IsToldToStop(); ++i) {
    *file = g_tracer.Receive();
    if (*file < 0 && *file != -EAGAIN) {
      *why = *file == -EMFILE ? "it has too many open files"
                              : "it may not receive the recording by recvmsg (a seccomp filter?)";
      break;
    }
    if (*file < 0 && __atomic_load_n(&offer.pid, __ATOMIC_ACQUIRE) != 0) {
      g_tracer.TakeOffer(offer, file, why);
      break;
    }
  }
  RawSyscall(SYS_close, outside);
  return *file >= 0;
}

bool Begin(int file, const char** why) {
  const bool is_node = IsNode();
  RecorderOptions options = {};
  options.descriptor = file;
  options.shim_path = Control().shim_path;
  options.max_bytes = Control().max_recording_bytes;
  options.sample_bytes = Control().sample_bytes;
  options.gc_at_end = true;
  options.flags = recording::kIsAttached | recording::kIsRootCommand | (is_node ? recording::kIsNode : 0u);
  if (!StartRecording(options, why)) return false;
  // The tracer hooks whatever the program itself is bound to.
  const bool partly = Control().partly_hooked != 0;
  SetCapability(
      recording::CapabilityId::kAllocations,
      partly ? recording::CapabilityState::kDegraded : recording::CapabilityState::kFull,
      partly ? "a function of the allocator could not be replaced: calls through pointers are not seen, nor, for "
               "a moment, those of a library that has just been loaded; so a block may have been freed that is "
               "counted here"
             : nullptr);
  if (Control().other_allocator != 0) SetOtherAllocator();
  StartProcessHooks();
  StartFeatures(is_node, options.gc_at_end);
  Control().wait_builtin = is_node ? v8::FindWaitBuiltin() : 0;
  return true;
}

bool g_stopping;

// Told to stop, or left alone by a tracer that did not say that we should go on.
void StopIfAsked(TracerSocket::Waited waited) {
  if (waited == TracerSocket::Waited::kGone) {
    g_tracer.Close();
    g_stopping = g_stopping || __atomic_load_n(&Control().keep, __ATOMIC_ACQUIRE) == 0;
  }
  if ((g_stopping || IsToldToStop()) && v8::GiveUpEndTurns()) Freeze(recording::FreezeReason::kDetach);
}

// Asked when the main thread was not found asleep in its loop.
void CollectIfAsked() {
  constexpr uint32_t kReachMs = 3000;
  if (!IsAsked(AttachRequest::kCollect)) return;
  v8::RequestEndPicture({0, kReachMs, nullptr, nullptr});
  if (!IsRecording()) return;
  // Collected, but the turns did not come.
  if (g_recorder.file.header()->gc_at_end == static_cast<uint32_t>(recording::GcAtEnd::kDone))
    return Freeze(recording::FreezeReason::kDetach);
  auto asked = static_cast<uint32_t>(AttachRequest::kCollect);
  __atomic_compare_exchange_n(&Control().request, &asked, static_cast<uint32_t>(AttachRequest::kNone), false,
                              __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

// While the tracer is there it is the socket that wakes us, and the bell is looked at between slices.
void Sleep(uint32_t bell, uint32_t ms) {
  constexpr uint32_t kSliceMs = 50;
  TracerSocket::Waited waited;
  uint32_t slept = 0;
  do {
    HookLaterLinks();
    const uint32_t slice = ms - slept < kSliceMs ? ms - slept : kSliceMs;
    waited = g_tracer.Wait(slice);
    slept += slice;
  } while (waited == TracerSocket::Waited::kTime && slept < ms && IsAsked(AttachRequest::kNone) &&
           __atomic_load_n(WatcherBell(), __ATOMIC_ACQUIRE) == bell);
  CollectIfAsked();
  StopIfAsked(waited);
}

// Node may have announced an end that does not come: a signal to itself that ends nothing, and the freeze is taken
// back. A process that stops meanwhile, by such a signal, has its time when it goes on.
bool IsOver() {
  constexpr int kNaps = 1000;
  const recording::Header& header = *g_recorder.file.header();
  for (int i = 0; i < kNaps && !IsRecording() && !IsToldToStop(); ++i) {
    const auto reason = static_cast<recording::FreezeReason>(__atomic_load_n(&header.freeze_reason, __ATOMIC_ACQUIRE));
    if (reason != recording::FreezeReason::kNone && reason != recording::FreezeReason::kAtExit) break;
    timespec nap = {0, 1'000'000};
    RawSyscall(SYS_nanosleep, reinterpret_cast<long>(&nap), 0);
  }
  return !IsRecording() && StayFrozen();
}

void* AttachMain(void*) {
  Control().watcher = static_cast<uint32_t>(RawSyscall(SYS_gettid));
  ReleaseRecording();  // of an earlier tracer that was killed
  const char* why = "";
  int file;
  if (!ReceiveFile(&file, &why) || !Begin(file, &why)) {
    g_tracer.Close();
    Fail(why);
    return nullptr;
  }
  __atomic_store_n(&g_recorder.control->recording, 1u, __ATOMIC_RELEASE);
  SetState(AttachState::kRecording);
  g_stopping = false;
  do Watch(Sleep);
  while (!IsOver());
  SetState(AttachState::kStopped);
  while (!IsAsked(AttachRequest::kRelease)) {
    constexpr uint32_t kTickMs = 100;
    if (g_tracer.Wait(kTickMs) == TracerSocket::Waited::kGone) g_tracer.Close();
  }
  g_tracer.Close();
  ReleaseRecording();
  Control().watcher = 0;
  SetState(AttachState::kInert);
  return nullptr;
}

// Behind libc in the order of loading: not preloaded.
int LooksForLibc(dl_phdr_info* info, size_t, void* before_us) {
  if (info->dlpi_addr == reinterpret_cast<uint64_t>(__ehdr_start)) return 1;
  const char* slash = strrchr(info->dlpi_name, '/');
  if (slash != nullptr && strcmp(slash, "/libc.so.6") == 0) *static_cast<bool*>(before_us) = true;
  return 0;
}

}  // namespace

bool WasInjected() {
  bool libc_before_us = false;
  dl_iterate_phdr(LooksForLibc, &libc_before_us);
  return libc_before_us;
}

void DescribePreloaded() {
  Control().pid = static_cast<uint32_t>(RawSyscall(SYS_getpid));
  SetState(AttachState::kPreloaded);
}

}  // namespace nodeleak::preload

// Called by the tracer on a borrowed thread of the program, which is at a place where it holds no lock of the allocator
// or the dynamic linker: quick, and all the work on a thread of our own.
extern "C" __attribute__((visibility("default"))) int nodeleak_attach_start() {
  using namespace nodeleak::preload;
  Guard guard;
  AttachControl& control = Control();
  const auto pid = static_cast<uint32_t>(RawSyscall(SYS_getpid));
  if (!Claim(pid)) return EBUSY;
  FindMemoryOriginals();
  process_originals();
  DescribeAttachHooks(&control);
  ForgetLinks();
  control.pid = pid;
  control.keep = 0;
  control.offer.pid = 0;
  control.why[0] = '\0';
  __atomic_store_n(&control.request, static_cast<uint32_t>(AttachRequest::kNone), __ATOMIC_RELEASE);
  const int error = StartOwnThread(AttachMain);
  if (error != 0) SetState(AttachState::kInert);
  return error;
}

// Called by the tracer on a thread of the program that it has found at a place where V8 may be asked that much. 0: this
// thread has no isolate that can be asked.
extern "C" __attribute__((visibility("default"))) int nodeleak_attach_safe_point(uint32_t what) {
  using namespace nodeleak::preload;
  switch (static_cast<AttachSafePoint>(what)) {
    case AttachSafePoint::kMeet:
      return v8::BorrowedSafePoint(false) ? 1 : 0;
    case AttachSafePoint::kEnd:
      return v8::BorrowedSafePoint(true) ? 1 : 0;
    case AttachSafePoint::kInterrupt:
      return v8::BorrowedInCompiledCode() ? 1 : 0;
  }
  return 0;
}
