#include "memory/system.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

namespace nodeleak::memory {
namespace {

long Number(const void* pointer) { return reinterpret_cast<long>(pointer); }

}  // namespace

bool ReadMemory(const System& system, uint64_t address, void* out, size_t bytes) {
  if (system.pid == 0) return false;
  iovec local = {out, bytes};
  iovec remote = {reinterpret_cast<void*>(address), bytes};
  const long got = system.call(SYS_process_vm_readv, system.pid, Number(&local), 1, Number(&remote), 1, 0);
  if (got != -EPERM && got != -ENOSYS) return got == static_cast<long>(bytes);
  ProcFile memory(system, "mem");  // a seccomp filter refuses that call: Docker's default profile did
  return memory.valid() && memory.ReadAt(address, out, bytes) == static_cast<long>(bytes);
}

ProcFile::ProcFile(const System& system, const char* name) : system_(system), fd_(-ENAMETOOLONG) {
  char path[kLongestLine];
  const size_t folder = strlen(system.folder), length = strlen(name);
  const bool absolute = name[0] == '/';
  if (folder + length + 2 > sizeof path) return;
  size_t at = 0;
  if (!absolute) {
    memcpy(path, system.folder, folder);
    at = folder;
    path[at++] = '/';
  }
  memcpy(path + at, name, length + 1);
  fd_ = system.call(SYS_openat, AT_FDCWD, Number(path), O_RDONLY | O_CLOEXEC, 0, 0, 0);
}

ProcFile::~ProcFile() {
  if (fd_ >= 0) system_.call(SYS_close, fd_, 0, 0, 0, 0, 0);
}

long ProcFile::Read(void* to, size_t bytes) {
  long got;
  do got = system_.call(SYS_read, fd_, Number(to), static_cast<long>(bytes), 0, 0, 0);
  while (got == -EINTR);
  return got;
}

long ProcFile::ReadAt(uint64_t offset, void* to, size_t bytes) {
  long got;
  do got = system_.call(SYS_pread64, fd_, Number(to), static_cast<long>(bytes), static_cast<long>(offset), 0, 0);
  while (got == -EINTR);
  return got;
}

uint64_t ParseHex(const char** p, const char* end) {
  uint64_t value = 0;
  for (; *p < end; ++*p) {
    const char c = **p;
    if (c >= '0' && c <= '9') {
      value = value * 16 + static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = value * 16 + static_cast<uint64_t>(c - 'a' + 10);
    } else {
      break;
    }
  }
  return value;
}

uint64_t ParseDecimal(const char** p, const char* end) {
  while (*p < end && (**p == ' ' || **p == '\t')) ++*p;
  uint64_t value = 0;
  for (; *p < end && **p >= '0' && **p <= '9'; ++*p) value = value * 10 + static_cast<uint64_t>(**p - '0');
  return value;
}

bool StartsWith(const char* text, size_t length, const char* prefix) {
  const size_t wanted = strlen(prefix);
  return length >= wanted && memcmp(text, prefix, wanted) == 0;
}

}  // namespace nodeleak::memory
