// Runs inside node, on any thread. The functions behind the hooks of process events, found once by dlsym(RTLD_NEXT):
// the next library's, or libc's.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/types.h>

namespace nodeleak::preload {

using SignalHandler = void (*)(int);
using CloneFunction = int (*)(void*);
using MainFunction = int (*)(int, char**, char**);
using VoidFunction = void (*)();

// One row per function: member, symbol, type of the function.
#define NODELEAK_PROCESS_ORIGINALS(ROW)                                                                   \
  ROW(libc_start_main, "__libc_start_main",                                                               \
      int(MainFunction, int, char**, VoidFunction, VoidFunction, VoidFunction, void*))                    \
  ROW(exit, "exit", void(int))                                                                            \
  ROW(quick_exit, "quick_exit", void(int))                                                                \
  ROW(underscore_exit, "_exit", void(int))                                                                \
  ROW(abort, "abort", void())                                                                             \
  ROW(underscore_fork, "_Fork", pid_t())                                                                  \
  ROW(clone, "clone", int(CloneFunction, void*, int, void*, ...))                                         \
  ROW(kill, "kill", int(pid_t, int))                                                                      \
  ROW(sigaction, "sigaction", int(int, const struct sigaction*, struct sigaction*))                       \
  ROW(signal, "signal", SignalHandler(int, SignalHandler))                                                \
  ROW(bsd_signal, "bsd_signal", SignalHandler(int, SignalHandler))                                        \
  ROW(ssignal, "ssignal", SignalHandler(int, SignalHandler))                                              \
  ROW(sysv_signal, "sysv_signal", SignalHandler(int, SignalHandler))                                      \
  ROW(underscore_sysv_signal, "__sysv_signal", SignalHandler(int, SignalHandler))                         \
  ROW(sigset, "sigset", SignalHandler(int, SignalHandler))                                                \
  ROW(execve, "execve", int(const char*, char* const*, char* const*))                                     \
  ROW(execvpe, "execvpe", int(const char*, char* const*, char* const*))                                   \
  ROW(fexecve, "fexecve", int(int, char* const*, char* const*))                                           \
  ROW(execveat, "execveat", int(int, const char*, char* const*, char* const*, int))                       \
  ROW(posix_spawn, "posix_spawn",                                                                         \
      int(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*, char* const*, \
          char* const*))                                                                                  \
  ROW(posix_spawnp, "posix_spawnp",                                                                       \
      int(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*, char* const*, \
          char* const*))                                                                                  \
  ROW(pthread_create, "pthread_create", int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*))  \
  ROW(epoll_wait, "epoll_wait", int(int, epoll_event*, int, int))                                         \
  ROW(epoll_pwait, "epoll_pwait", int(int, epoll_event*, int, int, const sigset_t*))                      \
  ROW(epoll_pwait2, "epoll_pwait2", int(int, epoll_event*, int, const struct timespec*, const sigset_t*)) \
  ROW(open, "open", int(const char*, int, ...))                                                           \
  ROW(open64, "open64", int(const char*, int, ...))                                                       \
  ROW(getcwd, "getcwd", char*(char*, size_t))                                                             \
  ROW(readlink, "readlink", ssize_t(const char*, char*, size_t))

struct ProcessOriginals {
#define ROW(member, symbol, ...)     \
  using member##_type = __VA_ARGS__; \
  member##_type* member;
  NODELEAK_PROCESS_ORIGINALS(ROW)
#undef ROW
};

// Complete before anything is asked of it; a hook may be called before our own start.
const ProcessOriginals& process_originals();
ProcessOriginals& MutableProcessOriginals();  // for the places that a tracer fills in

}  // namespace nodeleak::preload

// Marks the functions that take libc's place; everything else in the shim is hidden.
#define NODELEAK_HOOK extern "C" __attribute__((visibility("default")))
