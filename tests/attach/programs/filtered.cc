// Lives under a seccomp filter, or starts a program that does.
//   filtered kill|trap|errno CALLS [COMMAND...]
// CALLS are numbers of system calls, separated by commas: those that the filter does not let through; or, behind a '+',
// those that it does, and no others but what the programs of the tests do by themselves. Without a command it says
// "ready" before it installs the filter and then waits for a signal.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

namespace {

// Of node 18 to 26, by strace.
constexpr long kOfPrograms[] = {
    SYS_access,
    SYS_arch_prctl,
    SYS_brk,
    SYS_capget,
    SYS_clock_nanosleep,
    SYS_clone3,
    SYS_close,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_wait,
    SYS_eventfd2,
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_fcntl,
    SYS_fstat,
    SYS_futex,
    SYS_getcwd,
    SYS_getegid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getrandom,
    SYS_getuid,
    SYS_io_uring_enter,
    SYS_io_uring_setup,
    SYS_ioctl,
    SYS_madvise,
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_newfstatat,
    SYS_openat,
    SYS_pkey_alloc,
    SYS_read,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_set_tid_address,
    SYS_statx,
    SYS_sysinfo,
    SYS_uname,
    SYS_write,
};

void Add(uint32_t number, uint32_t result, std::vector<sock_filter>* code) {
  code->push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
  code->push_back(BPF_STMT(BPF_RET | BPF_K, result));
}

std::vector<sock_filter> BuildFilter(const char* calls, uint32_t action) {
  const bool only = calls[0] == '+';
  const uint32_t listed = only ? SECCOMP_RET_ALLOW : action, others = only ? action : SECCOMP_RET_ALLOW;
  std::vector<sock_filter> code = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const char* at = only ? calls + 1 : calls; *at != '\0';) {
    char* end;
    const unsigned long number = strtoul(at, &end, 10);
    if (end == at) exit(1);
    Add(static_cast<uint32_t>(number), listed, &code);
    at = *end == ',' ? end + 1 : end;
  }
  if (only)
    for (long number : kOfPrograms) Add(static_cast<uint32_t>(number), listed, &code);
  code.push_back(BPF_STMT(BPF_RET | BPF_K, others));
  return code;
}

uint32_t Action(const char* name) {
  if (strcmp(name, "kill") == 0) return SECCOMP_RET_KILL_PROCESS;
  if (strcmp(name, "trap") == 0) return SECCOMP_RET_TRAP;
  return SECCOMP_RET_ERRNO | EPERM;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 1;
  std::vector<sock_filter> code = BuildFilter(arguments[2], Action(arguments[1]));
  if (count == 3) puts("ready");
  fflush(stdout);
  const sock_fprog program = {static_cast<unsigned short>(code.size()), code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    return 1;
  if (count == 3) return pause();
  execvp(arguments[3], arguments + 3);
  return 1;
}
