#include "tracer/seccomp_filter.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <stddef.h>
#include <sys/syscall.h>

namespace nodeleak::tracer {
namespace {

constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | 1;

seccomp_data Call(long number, uint64_t first = 0) {
  seccomp_data data = {};
  data.nr = static_cast<int>(number);
  data.arch = AUDIT_ARCH_X86_64;
  data.args[0] = first;
  return data;
}

// What libseccomp makes: the architecture, then one comparison after the other.
const SeccompFilter kKillsMemfd = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

TEST(SeccompFilter, TellsCallsApart) {
  EXPECT_EQ(RunSeccompFilter(kKillsMemfd, Call(SYS_memfd_create)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(RunSeccompFilter(kKillsMemfd, Call(SYS_read)), SECCOMP_RET_ALLOW);
  seccomp_data of_32_bit = Call(SYS_read);
  of_32_bit.arch = AUDIT_ARCH_I386;
  EXPECT_EQ(RunSeccompFilter(kKillsMemfd, of_32_bit), SECCOMP_RET_KILL_THREAD);
}

TEST(SeccompFilter, CalculatesWithMemoryAndBothRegisters) {
  const SeccompFilter filter = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf0),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
      BPF_STMT(BPF_ST, 3),
      BPF_STMT(BPF_LDX | BPF_W | BPF_MEM, 3),
      BPF_STMT(BPF_LD | BPF_IMM, 7),
      BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 5, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kRefuse),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  EXPECT_EQ(RunSeccompFilter(filter, Call(SYS_read, 0x1f2f)), kRefuse);  // 7 - 2
  EXPECT_EQ(RunSeccompFilter(filter, Call(SYS_read, 0x1f4f)), 3u);
}

TEST(SeccompFilter, WhatTheKernelWouldNotTakeKills) {
  EXPECT_EQ(RunSeccompFilter({}, Call(SYS_read)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(RunSeccompFilter({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4096)}, Call(SYS_read)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(RunSeccompFilter({BPF_STMT(BPF_JMP | BPF_JA, 0xffffffffu)}, Call(SYS_read)), SECCOMP_RET_KILL_PROCESS);
}

TEST(SeccompFilters, TheStrictestCounts) {
  const SeccompFilter refuses = {BPF_STMT(BPF_RET | BPF_K, kRefuse)};
  EXPECT_EQ(RunSeccompFilters({}, Call(SYS_read)), SECCOMP_RET_ALLOW);
  EXPECT_EQ(RunSeccompFilters({kKillsMemfd, refuses}, Call(SYS_read)), kRefuse);
  EXPECT_EQ(RunSeccompFilters({refuses, kKillsMemfd}, Call(SYS_memfd_create)), SECCOMP_RET_KILL_PROCESS);
}

}  // namespace
}  // namespace nodeleak::tracer
