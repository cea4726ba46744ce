#include "preload/hooks/start.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/proc_text.h"
#include "preload/base/system.h"
#include "preload/hooks/attach_entry.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/process_hooks.h"
#include "preload/hooks/signal_hooks.h"
#include "preload/hooks/thread_hooks.h"
#include "preload/recorder/recorder_state.h"
#include "preload/unwind/modules.h"
#include "preload/unwind/stack_walk.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload {
namespace {

bool g_has_v8;

// Programs that only start others: recorded when they are node (npm), never when they are not (sh), unless all are
// asked for.
constexpr const char* kLaunchers[] = {"sh",      "bash", "dash",       "zsh",      "ksh",        "fish",      "busybox",
                                      "env",     "time", "timeout",    "nice",     "nohup",      "stdbuf",    "setsid",
                                      "sudo",    "su",   "xargs",      "make",     "tini",       "dumb-init", "strace",
                                      "ltrace",  "npm",  "npm-cli.js", "npx",      "npx-cli.js", "yarn",      "yarn.js",
                                      "yarnpkg", "pnpm", "pnpm.cjs",   "corepack", "corepack.js"};

const char* BaseName(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

bool IsLauncherName(const char* path) {
  for (const char* name : kLaunchers) {
    if (strcmp(BaseName(path), name) == 0) return true;
  }
  return false;
}

// node: the script it was given (the first argument that is no option); anything else: its executable.
bool IsLauncher(bool is_node) {
  if (!is_node) {
    char path[4096];
    const long length = RawSyscall(SYS_readlink, reinterpret_cast<long>("/proc/self/exe"), reinterpret_cast<long>(path),
                                   sizeof path - 1);
    if (length <= 0) return false;
    path[length] = '\0';
    return IsLauncherName(path);
  }
  MappedText command = ReadWholeFile("/proc/self/cmdline");
  const char* script = NextArgument(command, nullptr);  // node
  if (script != nullptr) script = NextArgument(command, script);
  while (script != nullptr && *script == '-') script = NextArgument(command, script);
  const bool launcher = script != nullptr && IsLauncherName(script);
  UnmapMemory(command.data, command.mapped);
  return launcher;
}

enum class Children { kNode, kAll, kNone };

Children ReadChildren() {
  const char* value = getenv("NODELEAK_CHILDREN");
  if (value != nullptr && strcmp(value, "all") == 0) return Children::kAll;
  if (value != nullptr && strcmp(value, "none") == 0) return Children::kNone;
  return Children::kNode;
}

uint64_t ReadNumber(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  return value != nullptr && *value != '\0' ? strtoull(value, nullptr, 10) : otherwise;
}

bool ShouldRecord(bool is_node, bool is_root, bool launcher, Children children) {
  if (children == Children::kAll) return true;
  if (is_node) return is_root || children == Children::kNode;
  return is_root && !launcher;
}

// A child's stderr may be read by its parent, so the launcher says it, at the end; it stays unsaid when the launcher
// cannot be told (its end, another user's process). Of the command itself, which may run long, it is said at once, and
// the launcher gets an empty sentence.
void SayNotRecorded(const RecorderOptions& options, const char* why) {
  char text[640];
  const int length = snprintf(text, sizeof text, "!process %ld is not recorded: %.300s: %.200s", RawSyscall(SYS_getpid),
                              options.path_template, why);
  if (length <= 0) return;
  static bool said;
  if ((options.flags & recording::kIsRootCommand) != 0) {
    SayOnce(&said, text + 1);
    TellLauncher(options.index_path, "!");
  } else if (options.index_path != nullptr) {
    TellLauncher(options.index_path, text);
  } else {
    SayOnce(&said, text + 1);
  }
}

// Another definition of malloc in front of the shim's, in the program itself or earlier in LD_PRELOAD, would take all
// of the family. One that is ours is enough to know: an executable that takes a function's address has a symbol for
// that function, too, which defines nothing.
bool ServesMalloc() {
  constexpr const char* kFamily[] = {"posix_memalign", "aligned_alloc", "calloc", "malloc"};
  for (const char* function : kFamily)
    if (InShim(reinterpret_cast<uint64_t>(dlsym(RTLD_DEFAULT, function)))) return true;
  return false;
}

void NoteWhoServesMalloc() {
  using recording::CapabilityId;
  using recording::CapabilityState;
  if (ServesMalloc()) return SetCapability(CapabilityId::kAllocations, CapabilityState::kFull, nullptr);
  SetCapability(CapabilityId::kAllocations, CapabilityState::kDegraded,
                "another allocator comes before the shim, in the program itself or in LD_PRELOAD, and its blocks are "
                "not seen");
}

// Or jemalloc's, mimalloc's: what we pass calls on to.
bool MallocIsLibcs() {
  const ModuleInfo* libc = FindModule(reinterpret_cast<uint64_t>(dlsym(RTLD_DEFAULT, "gnu_get_libc_version")));
  const ModuleInfo* original = FindModule(reinterpret_cast<uint64_t>(g_memory_originals.malloc));
  return libc != nullptr && original == libc;
}

bool Record(bool is_node, bool is_root, bool launcher) {
  RecorderOptions options = {};
  options.path_template = getenv("NODELEAK_OUTPUT");
  options.index_path = getenv("NODELEAK_INDEX");
  constexpr uint64_t kDefaultMaxBytes = 1ull << 30;
  options.max_bytes = ReadNumber("NODELEAK_MAX_RECORDING", kDefaultMaxBytes);
  options.sample_bytes = ReadNumber("NODELEAK_SAMPLE", 0);
  options.on_rss_bytes = ReadNumber("NODELEAK_ON_RSS", 0);
  const char* gc = getenv("NODELEAK_GC");
  options.gc_at_end = gc == nullptr || strcmp(gc, "off") != 0;
  options.flags = (is_node ? recording::kIsNode : 0u) | (launcher ? recording::kIsLauncher : 0u) |
                  (is_root ? recording::kIsRootCommand : 0u);
  if (options.path_template == nullptr) return false;
  const char* why = "";
  if (!StartRecording(options, &why)) {
    SayNotRecorded(options, why);
    return false;
  }
  NoteWhoServesMalloc();
  if (!MallocIsLibcs()) SetOtherAllocator();
  StartFeatures(is_node, options.gc_at_end);
  StartSignalHooks();
  return true;
}

// Runs before the constructors of other libraries (-z initfirst): what they allocate is recorded too.
__attribute__((constructor)) void Start(int, char**, char** environment) {
  Guard guard;
  if (environ == nullptr) environ = environment;  // libc's own constructor comes later; it will set the same
  if (WasInjected()) return;  // under the dynamic linker's lock, on a thread that is not ours: nothing is done here
  FindMemoryOriginals();
  if (getenv("NODELEAK_PRELOAD") == nullptr) return;
  DescribePreloaded();
  StartProcessHooks();
  const bool is_node = IsNode();
  const bool is_root = ReadNumber("NODELEAK_ROOT", 0) == static_cast<uint64_t>(RawSyscall(SYS_getpid));
  const bool launcher = IsLauncher(is_node);
  if (!ShouldRecord(is_node, is_root, launcher, ReadChildren())) return;
  if (!Record(is_node, is_root, launcher)) return;
  __atomic_store_n(&g_recorder.control->recording, 1u, __ATOMIC_RELEASE);
  StartWatcher(WatcherWait);
}

}  // namespace

bool IsNode() { return dlsym(RTLD_DEFAULT, "_ZN2v87Isolate13TryGetCurrentEv") != nullptr; }

void StartFeatures(bool is_node, bool gc_at_end) {
  g_has_v8 = is_node && v8::Start();
  if (!StartStackWalk(g_has_v8)) {
    SetCapability(recording::CapabilityId::kNativeStacks, recording::CapabilityState::kAbsent,
                  "no memory for the unwind rules");
  }
  if (is_node) v8::StartRuntime(gc_at_end);
  StartThreadHooks();
}

bool HasV8() { return g_has_v8; }

void ModulesGone() {
  ForgetUnwindRules();
  g_recorder.stacks.ForgetCached();
}

}  // namespace nodeleak::preload
