#include "preload/base/safe_read.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "preload/base/system.h"

namespace nodeleak::preload {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr int kMostPages = 16;
constexpr int kFirstDescriptor = 900;  // out of the way of programs that count on the lowest free number
constexpr int kNoDescriptor = -1;

long g_pid;
bool g_refused;  // process_vm_readv is
int g_memory = kNoDescriptor;
uint64_t g_memory_inode;

// Asked once; ForgetOwnMemory in a forked child, where the remembered one would read the parent.
long OwnPid() {
  long pid = __atomic_load_n(&g_pid, __ATOMIC_RELAXED);
  if (pid == 0) {
    pid = RawSyscall(SYS_getpid);
    __atomic_store_n(&g_pid, pid, __ATOMIC_RELAXED);
  }
  return pid;
}

bool IsRefused() { return __atomic_load_n(&g_refused, __ATOMIC_RELAXED); }

// Where process_vm_readv is not allowed, or not there, it will not be later either. A main thread that has left by
// pthread_exit has no memory any more under the number of the process.
long ReadByCall(const iovec* local, const iovec* remote, int remotes) {
  const auto read = [&](long id) {
    return RawSyscall(SYS_process_vm_readv, id, reinterpret_cast<long>(local), 1, reinterpret_cast<long>(remote),
                      remotes);
  };
  long result = read(OwnPid());
  if (result == -ESRCH) result = read(RawSyscall(SYS_gettid));
  if (result == -EPERM || result == -ENOSYS) __atomic_store_n(&g_refused, true, __ATOMIC_RELAXED);
  return result;
}

// Reads through it cannot fault, but see pages without access, too.
int OpenMemory() {
  const long opened =
      RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>("/proc/thread-self/mem"), O_RDONLY | O_CLOEXEC);
  if (opened < 0) return kNoDescriptor;
  const long high = RawSyscall(SYS_fcntl, opened, F_DUPFD_CLOEXEC, kFirstDescriptor);
  if (high >= 0) RawSyscall(SYS_close, opened);
  return static_cast<int>(high >= 0 ? high : opened);
}

uint64_t InodeOf(int fd) {
  struct stat status;
  return RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) == 0 ? status.st_ino : 0;
}

int MemoryDescriptor() {
  int known = __atomic_load_n(&g_memory, __ATOMIC_ACQUIRE);
  if (known != kNoDescriptor) return known;
  const int opened = OpenMemory();
  if (opened == kNoDescriptor) return opened;
  if (!__atomic_compare_exchange_n(&g_memory, &known, opened, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    RawSyscall(SYS_close, opened);  // another thread was faster
    return known;
  }
  __atomic_store_n(&g_memory_inode, InodeOf(opened), __ATOMIC_RELEASE);
  return opened;
}

bool ReadByDescriptor(uint64_t address, void* out, size_t bytes) {
  const int fd = MemoryDescriptor();
  const long got =
      RawSyscall(SYS_pread64, fd, reinterpret_cast<long>(out), static_cast<long>(bytes), static_cast<long>(address));
  if (got == static_cast<long>(bytes)) return true;
  // The program has closed it, and its number may be another file's: so far behind its beginning there is nothing.
  int lost = fd;
  if (got <= 0 && got != -EIO)
    __atomic_compare_exchange_n(&g_memory, &lost, kNoDescriptor, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  return false;
}

bool ReadWithoutCall(uint64_t address, void* out, size_t bytes) {
  for (uint64_t page = address & ~(kPageBytes - 1); page < address + bytes; page += kPageBytes)
    if (!IsPageReadable(page < address ? address : page)) return false;
  return ReadByDescriptor(address, out, bytes);
}

}  // namespace

// The kernel copies the mask, then finds that it does not know what to do with it.
bool IsPageReadable(uint64_t address) {
  constexpr long kNothingToDo = -1, kMaskBytes = 8;
  const long mask = static_cast<long>(address & ~uint64_t{kMaskBytes - 1});
  return RawSyscall(SYS_rt_sigprocmask, kNothingToDo, mask, 0, kMaskBytes) == -EINVAL;
}

bool SafeRead(uint64_t address, void* out, size_t bytes) {
  if (!IsRefused()) {
    const iovec local = {out, bytes};
    const iovec remote = {reinterpret_cast<void*>(address), bytes};
    const long result = ReadByCall(&local, &remote, 1);
    if (result == static_cast<long>(bytes)) return true;
    if (!IsRefused()) return false;
  }
  return ReadWithoutCall(address, out, bytes);
}

// Not where a page is not in memory: reading it would bring in the kernel's page of zeros, and the program's first
// write would then cost a second fault with an interrupt of each processor that runs a thread of it (Linux,
// mm/memory.c, do_wp_page).
bool ArePagesReadable(uint64_t address, int count) {
  if (IsRefused() || count > kMostPages) return false;
  uint8_t bytes[kMostPages];
  const long pages_bytes = static_cast<long>(kPageBytes) * count;
  if (RawSyscall(SYS_mincore, static_cast<long>(address), pages_bytes, reinterpret_cast<long>(bytes)) != 0)
    return false;
  for (int i = 0; i < count; ++i)
    if ((bytes[i] & 1) == 0) return false;
  const iovec local = {bytes, static_cast<size_t>(count)};
  iovec remote[kMostPages];
  for (int i = 0; i < count; ++i) remote[i] = {reinterpret_cast<void*>(address + i * kPageBytes), 1};
  return ReadByCall(&local, remote, count) == count;
}

void ForgetOwnMemory() {
  __atomic_store_n(&g_pid, 0, __ATOMIC_RELAXED);
  CloseOwnMemory();
}

void CloseOwnMemory() {
  const int fd = __atomic_exchange_n(&g_memory, kNoDescriptor, __ATOMIC_ACQ_REL);
  const bool ours = fd != kNoDescriptor && InodeOf(fd) == __atomic_load_n(&g_memory_inode, __ATOMIC_ACQUIRE);
  if (ours) RawSyscall(SYS_close, fd);
}

}  // namespace nodeleak::preload
