// Runs inside node, also in a vfork child (in its parent's memory): no allocation, no lock. The exec and posix_spawn
// families: children get what they need to be recorded.
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/hooks/child_environment.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/process_originals.h"
#include "preload/recorder/recorder.h"

namespace nodeleak::preload {
namespace {

// Around an exec of any kind. Tells the recorder only when it is our own process that goes.
class Exec {
 public:
  Exec(const ExecTarget& target, char* const* environment, void* room)
      : ours_(InRecordedProcess()), environment_(EnvironmentForChild(environment, target, ours_, room)) {
    if (!ours_ || !IsRecording()) return;
    told_ = true;
    Guard guard;
    WillExec();
  }
  // Reached only when it failed.
  int Failed(int result) {
    Guard guard;
    if (told_) ExecFailed();
    return result;
  }
  char* const* environment() const { return environment_; }

 private:
  bool ours_, told_ = false;
  char* const* environment_;
};

ExecTarget AtPath(const char* path) { return {path, false, -1}; }
ExecTarget InPath(const char* name) { return {name, true, -1}; }
ExecTarget OpenFile(int file) { return {nullptr, false, file}; }

// A path that is relative to another directory than the current one is looked at as that directory's link names it.
ExecTarget RelativeTo(int directory, const char* path) {
  if (path[0] == '\0') return OpenFile(directory);
  return path[0] == '/' || directory == AT_FDCWD ? AtPath(path) : OpenFile(-1);
}

}  // namespace
}  // namespace nodeleak::preload

// On the calling hook's own stack; nullptr when the environment is to be passed on as it is.
#define NODELEAK_ROOM(environment)                                            \
  ({                                                                          \
    const size_t bytes_ = nodeleak::preload::RoomForEnvironment(environment); \
    bytes_ == 0 ? nullptr : alloca(bytes_);                                   \
  })

using namespace nodeleak::preload;

NODELEAK_HOOK int execve(const char* path, char* const argv[], char* const envp[]) noexcept {
  Exec exec(AtPath(path), envp, NODELEAK_ROOM(envp));
  return exec.Failed(process_originals().execve(path, argv, exec.environment()));
}

NODELEAK_HOOK int execv(const char* path, char* const argv[]) noexcept {
  Exec exec(AtPath(path), environ, NODELEAK_ROOM(environ));
  return exec.Failed(process_originals().execve(path, argv, exec.environment()));
}

NODELEAK_HOOK int execvpe(const char* file, char* const argv[], char* const envp[]) noexcept {
  Exec exec(InPath(file), envp, NODELEAK_ROOM(envp));
  return exec.Failed(process_originals().execvpe(file, argv, exec.environment()));
}

NODELEAK_HOOK int execvp(const char* file, char* const argv[]) noexcept {
  Exec exec(InPath(file), environ, NODELEAK_ROOM(environ));
  return exec.Failed(process_originals().execvpe(file, argv, exec.environment()));
}

NODELEAK_HOOK int fexecve(int file, char* const argv[], char* const envp[]) noexcept {
  Exec exec(OpenFile(file), envp, NODELEAK_ROOM(envp));
  return exec.Failed(process_originals().fexecve(file, argv, exec.environment()));
}

NODELEAK_HOOK int execveat(int directory, const char* path, char* const argv[], char* const envp[],
                           int flags) noexcept {
  if (process_originals().execveat == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  Exec exec(RelativeTo(directory, path), envp, NODELEAK_ROOM(envp));
  return exec.Failed(process_originals().execveat(directory, path, argv, exec.environment(), flags));
}

// The arguments of execl and its relatives as an array on this function's stack; `last` is the list behind them.
#define NODELEAK_COLLECT_ARGUMENTS(first, argv, last)                     \
  size_t count = 1;                                                       \
  va_list last;                                                           \
  va_start(last, first);                                                  \
  while (va_arg(last, char*) != nullptr) ++count;                         \
  va_end(last);                                                           \
  auto** argv = static_cast<char**>(alloca((count + 1) * sizeof(char*))); \
  va_start(last, first);                                                  \
  argv[0] = const_cast<char*>(first);                                     \
  for (size_t i = 1; i <= count; ++i) argv[i] = va_arg(last, char*); /* with the closing null */

NODELEAK_HOOK int execl(const char* path, const char* first, ...) noexcept {
  NODELEAK_COLLECT_ARGUMENTS(first, argv, last)
  va_end(last);
  return execv(path, argv);
}

NODELEAK_HOOK int execlp(const char* file, const char* first, ...) noexcept {
  NODELEAK_COLLECT_ARGUMENTS(first, argv, last)
  va_end(last);
  return execvp(file, argv);
}

NODELEAK_HOOK int execle(const char* path, const char* first, ...) noexcept {
  NODELEAK_COLLECT_ARGUMENTS(first, argv, last)
  char* const* envp = va_arg(last, char* const*);
  va_end(last);
  return execve(path, argv, envp);
}

NODELEAK_HOOK int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                              const posix_spawnattr_t* attributes, char* const argv[], char* const envp[]) noexcept {
  char* const* environment = EnvironmentForChild(envp, AtPath(path), false, NODELEAK_ROOM(envp));
  return process_originals().posix_spawn(pid, path, actions, attributes, argv, environment);
}

NODELEAK_HOOK int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                               const posix_spawnattr_t* attributes, char* const argv[], char* const envp[]) noexcept {
  char* const* environment = EnvironmentForChild(envp, InPath(file), false, NODELEAK_ROOM(envp));
  return process_originals().posix_spawnp(pid, file, actions, attributes, argv, environment);
}
