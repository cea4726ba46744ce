#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/base/safe_read.h"

namespace nodeleak::preload {
namespace {

constexpr size_t kPage = 4096;

uint64_t Number(const void* address) { return reinterpret_cast<uint64_t>(address); }

// Three pages: one that can be read, filled with 'x', one without access, and one that is not there.
char* MapPages() {
  void* pages = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(pages, 'x', 2 * kPage);
  mprotect(static_cast<char*>(pages) + kPage, kPage, PROT_NONE);
  munmap(static_cast<char*>(pages) + 2 * kPage, kPage);
  return static_cast<char*>(pages);
}

// What SafeRead must do, whichever way it takes. Empty: it does.
const char* WhatIsWrong(const char* pages) {
  char out[2 * kPage] = {};
  if (!SafeRead(Number(pages), out, kPage) || out[0] != 'x' || out[kPage - 1] != 'x') return "a page was not read";
  if (!SafeRead(Number(pages) + 4093, out, 3)) return "the last bytes of a page were not read";
  if (SafeRead(Number(pages) + kPage, out, 1)) return "a page without access was read";
  if (SafeRead(Number(pages) + kPage - 2, out, 4)) return "bytes were read across the border";
  if (SafeRead(Number(pages) + 2 * kPage, out, 1)) return "a page that is not there was read";
  if (SafeRead(uint64_t{1} << 63, out, 8)) return "an address of the kernel was read";
  if (ArePagesReadable(Number(pages), 2)) return "a page without access is called readable";
  return "";
}

// For good: only in a child.
void RefuseProcessVmReadv() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    _exit(99);
}

int OpenDescriptors() {
  int open = 0;
  for (int fd = 0; fd < 1024; ++fd) open += fcntl(fd, F_GETFD) != -1 ? 1 : 0;
  return open;
}

[[noreturn]] void End(const char* wrong) {
  fprintf(stderr, "%s\n", wrong);
  _exit(wrong[0] == '\0' ? 0 : 1);
}

TEST(SafeRead, ReadsWhatCanBeReadAndNothingElse) {
  const char* pages = MapPages();
  EXPECT_STREQ("", WhatIsWrong(pages));
  EXPECT_TRUE(ArePagesReadable(Number(pages), 1));
}

TEST(SafeRead, DoesTheSameWhereProcessVmReadvIsRefused) {
  EXPECT_EXIT(
      {
        RefuseProcessVmReadv();
        const int before = OpenDescriptors();
        const char* wrong = WhatIsWrong(MapPages());
        if (wrong[0] == '\0' && OpenDescriptors() != before + 1) wrong = "not by one descriptor";
        CloseOwnMemory();
        if (wrong[0] == '\0' && OpenDescriptors() != before) wrong = "a descriptor is left";
        End(wrong);
      },
      testing::ExitedWithCode(0), "");
}

TEST(SafeRead, OutlivesAProgramThatClosesAllDescriptors) {
  EXPECT_EXIT(
      {
        RefuseProcessVmReadv();
        const char* pages = MapPages();
        char out[8];
        SafeRead(Number(pages), out, sizeof out);
        for (int fd = 3; fd < 1024; ++fd) close(fd);
        SafeRead(Number(pages), out, sizeof out);  // may fail, and finds out
        End(WhatIsWrong(pages));
      },
      testing::ExitedWithCode(0), "");
}

TEST(SafeRead, ReadsTheChildsMemoryInAForkedChild) {
  EXPECT_EXIT(
      {
        RefuseProcessVmReadv();
        char* pages = MapPages();
        char byte = 0;
        SafeRead(Number(pages), &byte, 1);
        if (fork() != 0) {
          sleep(10);  // its memory is there until the child has told
          End("the child did not end this");
        }
        ForgetOwnMemory();
        pages[0] = 'c';
        const bool right = SafeRead(Number(pages), &byte, 1) && byte == 'c';
        kill(getppid(), right ? SIGUSR1 : SIGUSR2);
        _exit(0);
      },
      testing::KilledBySignal(SIGUSR1), "");
}

}  // namespace
}  // namespace nodeleak::preload
