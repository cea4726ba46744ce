// Inside node, for tests only: prints the whole stack of every allocation of at least HARNESS_MIN bytes, with
// preload/v8 doing the JavaScript part and libunwind the native part. Output goes to HARNESS_OUT, one line a frame:
//   EVENT <size>            J|B|W|M <tab separated fields>            N <pc>            END
// HARNESS_EVERY=n walks every n-th allocation of any size without printing (for stress), HARNESS_TROUBLE=1 prints those
// of them that met something unreadable.
#define UNW_LOCAL_ONLY
#include <dlfcn.h>
#include <fcntl.h>
#include <libunwind.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/script_scopes.h"
#include "recording/layout.h"

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
}

namespace nodeleak::preload {

static int g_out = 2;
static size_t g_min_bytes = 1'000'000;
static uint32_t g_every;
static bool g_print_trouble;
static bool g_on;
static uint64_t g_counts[4];  // walks, V8 frames, unreadable, broken chains

void SetCapability(recording::CapabilityId id, recording::CapabilityState state, const char* why) {
  if (getenv("HARNESS_CAPABILITIES") != nullptr)
    fprintf(stderr, "capability %u state %u %s\n", static_cast<unsigned>(id), static_cast<unsigned>(state), why);
}

void v8::NoteScope(uint64_t) {}

namespace {

// Per thread, made at its first event: static TLS must stay small.
struct Output {
  char text[256 * 1024];
  size_t size;
  v8::ResolveBuffer resolved;
  void Print(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(text + size, sizeof text - size, format, arguments);
    va_end(arguments);
    if (written > 0)
      size = size + static_cast<size_t>(written) < sizeof text ? size + static_cast<size_t>(written) : sizeof text - 1;
  }
};
__thread Output* t_output;
__thread StackBounds t_bounds;

StackBounds ThreadStack() {
  if (t_bounds.high != 0) return t_bounds;
  pthread_attr_t attributes;
  void* low;
  size_t bytes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return {};
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  t_bounds = {reinterpret_cast<uint64_t>(low), reinterpret_cast<uint64_t>(low) + bytes};
  return t_bounds;
}

void PrintResolved(const v8::ResolvedFrame& frame, const char* text, Output* out) {
  const char letter = "??JWMB"[frame.type];
  auto string = [&](v8::ResolvedString s) { return static_cast<int>(s.length); };
  out->Print("%c\t%.*s\t%.*s\t%u\t%u\t%u\t%u\t%.*s\t%u\t%u\t%u\t%lu\n", letter, string(frame.name),
             text + frame.name.offset, string(frame.file), text + frame.file.offset, frame.line, frame.column,
             frame.tier, frame.inlined, string(frame.where), text + frame.where.offset, frame.function_line,
             frame.function_column, frame.function_flags, frame.value);
}

void TakeV8Frame(const WalkedFrame& frame, bool print, Output* out) {
  ++g_counts[1];
  if (frame.type == WalkedType::kMarker) {
    ++g_counts[2];
    if (print) out->Print("M\t%lu\n", frame.key_a);
    return;
  }
  constexpr uint64_t kResolveEvery = 64;  // unprinted walks are for the keys: resolving is what is slow
  if (!print && g_counts[0] % kResolveEvery != 0) return;
  bool cacheable;
  bool known = v8::ResolveV8Frame(frame, &out->resolved, &cacheable);
  if (!known) ++g_counts[2];
  if (!print) return;
  out->Print("K\t%lx\t%lx\t%d\n", frame.key_a, frame.key_b, cacheable);
  if (!known) out->Print("M\t5\n");
  for (uint32_t i = 0; i < out->resolved.frame_count; ++i)
    PrintResolved(out->resolved.frames[i], out->resolved.text, out);
}

bool InElfText(uint64_t pc) {
  dl_find_object object;  // dladdr walks the whole symbol table
  return _dl_find_object(reinterpret_cast<void*>(pc), &object) == 0;
}

bool WalkV8(WalkRegisters* registers, bool print, Output* out) {
  for (;;) {
    const v8::CodeKind code = v8::FindCode(registers->pc, InElfText(registers->pc));
    if (code == v8::CodeKind::kNotV8) return true;
    WalkedFrame frame = {};
    StackSlot slots[8];
    SlotLog log(slots, 8);
    v8::StepResult result = v8::StepV8Frame(code, registers, ThreadStack(), &log, &frame);
    if (result != v8::StepResult::kSkip) TakeV8Frame(frame, print, out);
    if (result == v8::StepResult::kStop) {
      ++g_counts[3];
      return false;
    }
  }
}

void Walk(size_t bytes, bool print) {
  if (t_output == nullptr) t_output = static_cast<Output*>(MapMemory(sizeof(Output)));
  Output* out = t_output;
  if (out == nullptr) return;
  ++g_counts[0];
  out->size = 0;
  if (print) out->Print("EVENT\t%zu\n", bytes);
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  unw_init_local(&cursor, &context);
  for (int depth = 0; depth < 500; ++depth) {
    unw_word_t pc, sp, fp;
    unw_get_reg(&cursor, UNW_REG_IP, &pc);
    unw_get_reg(&cursor, UNW_REG_SP, &sp);
    unw_get_reg(&cursor, UNW_X86_64_RBP, &fp);
    if (pc == 0) break;
    if (v8::FindCode(pc, InElfText(pc)) != v8::CodeKind::kNotV8) {
      WalkRegisters registers = {pc, sp, fp};
      if (!WalkV8(&registers, print, out)) break;
      auto* saved = reinterpret_cast<ucontext_t*>(&context)->uc_mcontext.gregs;
      saved[REG_RIP] = static_cast<greg_t>(registers.pc);
      saved[REG_RSP] = static_cast<greg_t>(registers.sp);
      saved[REG_RBP] = static_cast<greg_t>(registers.fp);
      unw_init_local(&cursor, &context);
      continue;
    }
    if (print) out->Print("N\t%lx\n", pc);
    if (unw_step(&cursor) <= 0) break;
  }
  if (!print) return;
  out->Print("END\n");
  RawSyscall(SYS_write, g_out, reinterpret_cast<long>(out->text), static_cast<long>(out->size));
}

inline void Seen(size_t bytes) {
  if (!g_on) return;
  Guard guard;
  if (!guard.outermost()) return;
  static thread_local uint32_t count;
  if (bytes >= g_min_bytes) {
    Walk(bytes, true);
  } else if (g_every != 0 && ++count % g_every == 0) {
    uint64_t trouble = g_counts[2] + g_counts[3];
    Walk(bytes, false);
    if (g_print_trouble && g_counts[2] + g_counts[3] != trouble) Walk(bytes, true);
  }
}

__attribute__((constructor)) void StartHarness() {
  Guard guard;
  if (const char* bytes = getenv("HARNESS_MIN")) g_min_bytes = strtoul(bytes, nullptr, 10);
  if (const char* every = getenv("HARNESS_EVERY")) g_every = static_cast<uint32_t>(strtoul(every, nullptr, 10));
  g_print_trouble = getenv("HARNESS_TROUBLE") != nullptr;
  if (const char* path = getenv("HARNESS_OUT")) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    g_out = fcntl(fd, F_DUPFD_CLOEXEC, 700);
    close(fd);
  }
  g_on = v8::Start();
}

__attribute__((destructor)) void EndHarness() {
  if (getenv("HARNESS_COUNTS") != nullptr)
    fprintf(stderr, "walks %lu v8-frames %lu unreadable %lu broken %lu\n", g_counts[0], g_counts[1], g_counts[2],
            g_counts[3]);
}

}  // namespace
}  // namespace nodeleak::preload

using nodeleak::preload::Seen;
namespace v8 = nodeleak::preload::v8;
#define HOOK extern "C" __attribute__((visibility("default")))

HOOK void* malloc(size_t bytes) {
  void* block = __libc_malloc(bytes);
  Seen(bytes);
  return block;
}
HOOK void* calloc(size_t count, size_t bytes) {
  void* block = __libc_calloc(count, bytes);
  Seen(count * bytes);
  return block;
}
HOOK void* realloc(void* old, size_t bytes) {
  void* block = __libc_realloc(old, bytes);
  Seen(bytes);
  return block;
}
HOOK void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) __THROW {
  long result = syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
  if (result != -1)
    v8::MemoryChanged(static_cast<uint64_t>(result), bytes, protection == PROT_NONE, (protection & PROT_EXEC) != 0);
  return reinterpret_cast<void*>(result);
}
HOOK int munmap(void* address, size_t bytes) __THROW {
  int result = static_cast<int>(syscall(SYS_munmap, address, bytes));
  v8::MemoryChanged(reinterpret_cast<uint64_t>(address), bytes, true, false);
  return result;
}
HOOK int mprotect(void* address, size_t bytes, int protection) __THROW {
  int result = static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
  v8::MemoryChanged(reinterpret_cast<uint64_t>(address), bytes, protection == PROT_NONE, (protection & PROT_EXEC) != 0);
  if (protection == (PROT_READ | PROT_WRITE)) Seen(bytes);
  return result;
}
