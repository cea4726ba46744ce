#include "preload/hooks/attach_hooks.h"

#include <string.h>

#include "preload/base/guard.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/new_originals.h"
#include "preload/hooks/process_originals.h"

// Room for the displaced first instructions of the hooked functions, written by the tracer. In our own text, so that
// no memory has to be made executable in the program. 0xcc is a breakpoint.
asm(R"(
  .pushsection .text.nodeleak_trampolines, "ax", @progbits
  .balign 64
  .hidden nodeleak_trampolines
  .globl nodeleak_trampolines
  .type nodeleak_trampolines, @object
nodeleak_trampolines:
  .fill 3072, 1, 0xcc
  .size nodeleak_trampolines, 3072
  .popsection
)");
extern "C" const char nodeleak_trampolines[] __attribute__((visibility("hidden")));

namespace nodeleak::preload {
namespace {

static_assert(recording::kTrampolineBytes * recording::kMaxAttachHooks == 3072);

uint64_t Number(const void* address) { return reinterpret_cast<uint64_t>(address); }

}  // namespace

void DescribeAttachHooks(recording::AttachControl* control) {
  ProcessOriginals& process = MutableProcessOriginals();
  // What a recording needs to know of a running program. The hooks of a preloaded shim on the ends of the process, its
  // signals, execs and children are not among them: they change what a program does, and here nobody asked for that.
  // That on kill looks only at what came of it.
  // Names that are one function in this process (mmap64 is mmap in glibc, but memalign is not aligned_alloc in
  // jemalloc) are hooked once, by the first row.
  const struct {
    const char* symbol;
    const void* original;
    const void* enable;
  } rows[] = {
#define MEMORY(name) {#name, &g_memory_originals.name, nullptr}
#define PROCESS(name) \
  { #name, &process.name, nullptr }
#define OPERATOR(name, ...) {#name, &g_new_originals.name.call, &g_new_originals.name.allocates},
      MEMORY(malloc),
      MEMORY(calloc),
      MEMORY(realloc),
      MEMORY(reallocarray),
      MEMORY(free),
      MEMORY(posix_memalign),
      MEMORY(aligned_alloc),
      MEMORY(memalign),
      MEMORY(valloc),
      MEMORY(pvalloc),
      MEMORY(free_sized),
      MEMORY(free_aligned_sized),
      MEMORY(mmap),
      MEMORY(mmap64),
      MEMORY(munmap),
      MEMORY(mremap),
      MEMORY(mprotect),
      MEMORY(pkey_mprotect),
      MEMORY(dlclose),
      PROCESS(pthread_create),
      PROCESS(epoll_wait),
      PROCESS(epoll_pwait),
      PROCESS(epoll_pwait2),
      PROCESS(kill),
      NODELEAK_NEW_ORIGINALS(OPERATOR)
#undef MEMORY
#undef PROCESS
#undef OPERATOR
  };
  static_assert(sizeof rows / sizeof rows[0] <= recording::kMaxAttachHooks);
  uint32_t count = 0;
  for (const auto& row : rows) {
    recording::AttachHook& hook = control->hooks[count];
    strncpy(hook.symbol, row.symbol, sizeof hook.symbol - 1);
    hook.original = Number(row.original);
    hook.enable = Number(row.enable);
    hook.trampoline = Number(nodeleak_trampolines) + count * recording::kTrampolineBytes;
    ++count;
  }
  control->hook_count = count;
  uint64_t thread_pointer;
  asm("mov %%fs:0, %0" : "=r"(thread_pointer));  // x86-64: the first word of the thread's control block is its address
  control->depth_offset = static_cast<int64_t>(Number(&t_locals.depth) - thread_pointer);
}

}  // namespace nodeleak::preload
