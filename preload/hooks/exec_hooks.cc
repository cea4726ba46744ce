#include "preload/hooks/exec_hooks.h"

#include <alloca.h>
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/process_originals.h"
#include "preload/recorder/recorder.h"

namespace nodeleak::preload {
namespace {

constexpr char kOurPrefix[] = "NODELEAK_";
constexpr char kOurPath[] = "NODELEAK_PRELOAD=";
constexpr char kChildren[] = "NODELEAK_CHILDREN=";
constexpr char kPreload[] = "LD_PRELOAD=";

constexpr size_t kMaxOurs = 32;
constexpr size_t kMaxEntries = 1024;       // of an environment that we rewrite; a longer one is passed unchanged
constexpr size_t kMaxPreloadBytes = 4096;  // of LD_PRELOAD

struct ForChildren {
  const char* path;  // of the shim; nullptr: nothing to do for children
  bool take_out;     // --children=none
  char* ours[kMaxOurs];
  size_t count;
};
ForChildren g_for_children;

bool StartsWith(const char* text, const char* prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

size_t NameBytes(const char* entry) {
  const char* equals = strchr(entry, '=');
  return equals == nullptr ? strlen(entry) : static_cast<size_t>(equals - entry) + 1;
}

char* Find(char* const* environment, const char* entry) {
  size_t bytes = NameBytes(entry);
  for (; *environment != nullptr; ++environment)
    if (strncmp(*environment, entry, bytes) == 0) return *environment;
  return nullptr;
}

// LD_PRELOAD separates by colons and spaces.
bool IsSeparator(char c) { return c == ':' || c == ' ' || c == '\0'; }

// The next occurrence of the shim as a whole entry.
const char* FindShim(const char* list) {
  size_t bytes = strlen(g_for_children.path);
  for (const char* at = list; (at = strstr(at, g_for_children.path)) != nullptr; ++at)
    if ((at == list || IsSeparator(at[-1])) && IsSeparator(at[bytes])) return at;
  return nullptr;
}

// A rewritten environment, on the caller's stack.
struct NewEnvironment {
  char* entries[kMaxEntries + kMaxOurs + 2];
  char preload[kMaxPreloadBytes];
};

// LD_PRELOAD=<shim>[:<the caller's>]. First also where the caller had it later: an allocator in front of us would
// serve the program without us.
char* WithShim(char* old, NewEnvironment* out) {
  const char* list = old == nullptr ? "" : old + strlen(kPreload);
  const char* shim = FindShim(list);
  if (shim == list) return old;
  const size_t path_bytes = strlen(g_for_children.path);
  if (strlen(kPreload) + path_bytes + 1 + strlen(list) + 1 > kMaxPreloadBytes) return old;
  char* end = stpcpy(stpcpy(out->preload, kPreload), g_for_children.path);
  if (*list == '\0') return out->preload;
  *end++ = ':';
  if (shim == nullptr) {
    stpcpy(end, list);
  } else {
    const auto before = static_cast<size_t>(shim - list) - 1;  // without its separator
    memcpy(end, list, before);
    stpcpy(end + before, shim + path_bytes);
  }
  return out->preload;
}

// LD_PRELOAD without the shim; nullptr when nothing else was in it.
char* WithoutShim(char* old, NewEnvironment* out) {
  const char* list = old + strlen(kPreload);
  const char* shim = FindShim(list);
  if (shim == nullptr || strlen(old) >= kMaxPreloadBytes) return old;
  const char* after = shim + strlen(g_for_children.path);
  if (*after != '\0') ++after;  // its separator
  auto before = static_cast<size_t>(shim - list);
  if (*after == '\0' && before > 0) --before;
  if (before == 0 && *after == '\0') return nullptr;
  char* to = stpcpy(out->preload, kPreload);
  memcpy(to, list, before);
  stpcpy(to + before, after);
  return out->preload;
}

void Append(NewEnvironment* out, size_t* count, char* entry) {
  if (entry != nullptr) out->entries[(*count)++] = entry;
}

void AddOurs(char* const* old, NewEnvironment* out) {
  size_t count = 0;
  Append(out, &count, WithShim(Find(old, kPreload), out));
  for (char* const* entry = old; *entry != nullptr; ++entry)
    if (!StartsWith(*entry, kPreload)) Append(out, &count, *entry);
  for (size_t i = 0; i < g_for_children.count; ++i)
    if (Find(old, g_for_children.ours[i]) == nullptr) Append(out, &count, g_for_children.ours[i]);
  out->entries[count] = nullptr;
}

void TakeOursOut(char* const* old, NewEnvironment* out) {
  size_t count = 0;
  for (char* const* entry = old; *entry != nullptr; ++entry) {
    if (StartsWith(*entry, kPreload)) {
      Append(out, &count, WithoutShim(*entry, out));
    } else if (!StartsWith(*entry, kOurPrefix)) {
      Append(out, &count, *entry);
    }
  }
  out->entries[count] = nullptr;
}

bool IsComplete(char* const* environment) {
  const char* preload = Find(environment, kPreload);
  if (preload == nullptr || FindShim(preload + strlen(kPreload)) != preload + strlen(kPreload)) return false;
  for (size_t i = 0; i < g_for_children.count; ++i)
    if (Find(environment, g_for_children.ours[i]) == nullptr) return false;
  return true;
}

bool IsShort(char* const* environment) {
  size_t count = 0;
  while (environment[count] != nullptr && count <= kMaxEntries) ++count;
  return count <= kMaxEntries;
}

// The environment to pass on: the caller's, or *out.
char* const* ForChild(char* const* environment, bool is_child, NewEnvironment* out) {
  static char* empty[] = {nullptr};
  if (g_for_children.path == nullptr) return environment;
  char* const* old = environment == nullptr ? empty : environment;  // Linux takes null for an empty one
  if (!IsShort(old)) return environment;
  // A process that replaces itself is still the command that was to be recorded.
  bool take_out = g_for_children.take_out && is_child;
  if (take_out) {
    TakeOursOut(old, out);
  } else {
    if (IsComplete(old)) return environment;
    AddOurs(old, out);
  }
  return out->entries;
}

// Around an exec of any kind. Tells the recorder only when it is our own process that goes.
class Exec {
 public:
  explicit Exec(char* const* environment)
      : ours_(InRecordedProcess()), environment_(ForChild(environment, !ours_, &new_environment_)) {
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
  NewEnvironment new_environment_;
  char* const* environment_;
};

struct Spawn {
  explicit Spawn(char* const* caller) : environment(ForChild(caller, true, &new_environment)) {}
  NewEnvironment new_environment;
  char* const* environment;
};

}  // namespace

void RememberEnvironmentForChildren() {
  size_t bytes = 0;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    if (StartsWith(*entry, kOurPrefix)) bytes += strlen(*entry) + 1;
  if (bytes == 0) return;
  auto* copy = static_cast<char*>(MapMemory(bytes));  // the program may change its environment
  if (copy == nullptr) return;
  for (char** entry = environ; *entry != nullptr && g_for_children.count < kMaxOurs; ++entry) {
    if (!StartsWith(*entry, kOurPrefix)) continue;
    g_for_children.ours[g_for_children.count++] = copy;
    if (StartsWith(*entry, kOurPath)) g_for_children.path = copy + strlen(kOurPath);
    if (StartsWith(*entry, kChildren)) g_for_children.take_out = strcmp(*entry + strlen(kChildren), "none") == 0;
    copy = stpcpy(copy, *entry) + 1;
  }
}

}  // namespace nodeleak::preload

using nodeleak::preload::Exec;
using nodeleak::preload::process_originals;
using nodeleak::preload::Spawn;

NODELEAK_HOOK int execve(const char* path, char* const argv[], char* const envp[]) noexcept {
  Exec exec(envp);
  return exec.Failed(process_originals().execve(path, argv, exec.environment()));
}

NODELEAK_HOOK int execv(const char* path, char* const argv[]) noexcept {
  Exec exec(environ);
  return exec.Failed(process_originals().execve(path, argv, exec.environment()));
}

NODELEAK_HOOK int execvpe(const char* file, char* const argv[], char* const envp[]) noexcept {
  Exec exec(envp);
  return exec.Failed(process_originals().execvpe(file, argv, exec.environment()));
}

NODELEAK_HOOK int execvp(const char* file, char* const argv[]) noexcept {
  Exec exec(environ);
  return exec.Failed(process_originals().execvpe(file, argv, exec.environment()));
}

NODELEAK_HOOK int fexecve(int file, char* const argv[], char* const envp[]) noexcept {
  Exec exec(envp);
  return exec.Failed(process_originals().fexecve(file, argv, exec.environment()));
}

NODELEAK_HOOK int execveat(int directory, const char* path, char* const argv[], char* const envp[],
                           int flags) noexcept {
  if (process_originals().execveat == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  Exec exec(envp);
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
  Spawn spawn(envp);
  return process_originals().posix_spawn(pid, path, actions, attributes, argv, spawn.environment);
}

NODELEAK_HOOK int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                               const posix_spawnattr_t* attributes, char* const argv[], char* const envp[]) noexcept {
  Spawn spawn(envp);
  return process_originals().posix_spawnp(pid, file, actions, attributes, argv, spawn.environment);
}
