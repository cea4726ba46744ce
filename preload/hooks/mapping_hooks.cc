// Runs inside node, on any thread, also inside a collection. The mmap family, and dlclose: what lies at an address
// changes. madvise is not among them: it takes pages away and leaves the mapping reserved or committed as it was; what
// is resident is asked of the kernel.
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/base/guard.h"
#include "preload/base/system.h"
#include "preload/hooks/memory_originals.h"
#include "preload/hooks/process_originals.h"
#include "preload/hooks/start.h"
#include "preload/recorder/recorder.h"
#include "preload/unwind/modules.h"
#include "preload/unwind/stack_walk.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/runtime.h"

using namespace nodeleak::preload;

namespace {

bool Watching() { return IsRecording() && t_locals.depth == 0; }

uint64_t Number(const void* address) { return reinterpret_cast<uint64_t>(address); }

constexpr uint64_t kPageMask = nodeleak::recording::kPageBytes - 1;
constexpr uint64_t kUserSpaceEnd = 1ull << 56;  // with page tables of five levels

// As the kernel does.
uint64_t RoundToPage(uint64_t bytes) { return (bytes + kPageMask) & ~kPageMask; }

// The kernel refuses any other.
bool CanBeMapped(uint64_t start, uint64_t bytes) {
  return bytes != 0 && (start & kPageMask) == 0 && start < kUserSpaceEnd && bytes <= kUserSpaceEnd - start;
}

void TellV8(uint64_t start, uint64_t bytes, bool unreadable, bool executable) {
  if (HasV8() && v8::MemoryChanged(start, bytes, unreadable, executable)) ForgetUnwindRules();
}

// --use-largepages: node maps empty pages over its own code and copies it back afterwards (src/large_pages/
// node_large_page.cc). In between none of its functions can be called, and a stack walk may want to.
bool IsOverNodesCode(void* address, size_t bytes, int flags) {
  return (flags & MAP_FIXED) != 0 && bytes != 0 &&
         (v8::IsCodeOfNode(Number(address)) || v8::IsCodeOfNode(Number(address) + bytes - 1));
}

template <typename Call>
void* Map(size_t bytes, int protection, int flags, int fd, Call call) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  if (!Watching()) return call();
  Guard guard;
  void* address = call();
  guard.KeepErrno();
  if (address != MAP_FAILED && !IsOverNodesCode(address, bytes, flags)) {
    const bool anonymous = (flags & MAP_ANONYMOUS) != 0 || fd < 0;
    Mapped({Number(address), bytes, protection, flags, !anonymous});
    if ((protection & PROT_EXEC) != 0 || (flags & MAP_FIXED) != 0) {
      TellV8(Number(address), bytes, (protection & PROT_READ) == 0, (protection & PROT_EXEC) != 0);
    }
  }
  return address;
}

template <typename Call>
int Protect(void* address, size_t bytes, int protection, Call call) {
  if (!Watching()) return call();
  Guard guard;
  const int result = call();
  guard.KeepErrno();
  if (result == 0) {
    if (bytes != 0) Protected(Number(address), RoundToPage(bytes), protection);
    if ((protection & (PROT_EXEC | PROT_READ)) != PROT_READ) {
      TellV8(Number(address), bytes, (protection & PROT_READ) == 0, (protection & PROT_EXEC) != 0);
    }
  }
  return result;
}

}  // namespace

NODELEAK_HOOK void* mmap(void* hint, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return Map(bytes, protection, flags, fd,
             [=] { return g_memory_originals.mmap(hint, bytes, protection, flags, fd, offset); });
}

NODELEAK_HOOK void* mmap64(void* hint, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return Map(bytes, protection, flags, fd,
             [=] { return g_memory_originals.mmap64(hint, bytes, protection, flags, fd, offset); });
}

NODELEAK_HOOK int munmap(void* address, size_t bytes) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  if (!Watching() || !CanBeMapped(Number(address), bytes)) return g_memory_originals.munmap(address, bytes);
  Guard guard;
  const uint64_t rounded = RoundToPage(bytes);
  TakenRanges taken;
  TakeMapping(Number(address), rounded, &taken);
  if (HasV8()) v8::MemoryWillGo(Number(address), rounded);
  const int result = g_memory_originals.munmap(address, bytes);
  guard.KeepErrno();
  if (result == 0) {
    Unmapped(taken);
  } else {
    PutBack(taken);
  }
  TellV8(Number(address), rounded, true, false);
  return result;
}

NODELEAK_HOOK void* mremap(void* old_address, size_t old_bytes, size_t new_bytes, int flags, ...) {
  void* new_address = nullptr;
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    new_address = va_arg(arguments, void*);
    va_end(arguments);
  }
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  const auto call = [&] { return g_memory_originals.mremap(old_address, old_bytes, new_bytes, flags, new_address); };
  if (!Watching()) return call();
  Guard guard;
  // Both leave the old mapping where it is: a second view of shared memory, and pages that moved out of theirs.
  const bool another_view = old_bytes == 0;
  const bool stays = another_view || (flags & MREMAP_DONTUNMAP) != 0;
  TakenRanges taken = {};
  if (!stays && CanBeMapped(Number(old_address), old_bytes) && CanBeMapped(0, new_bytes))
    TakeMapping(Number(old_address), RoundToPage(old_bytes), &taken);
  void* moved = call();
  guard.KeepErrno();
  if (moved == MAP_FAILED) {
    PutBack(taken);
    return moved;
  }
  if (stays) {
    MappedLike(Number(old_address),
               {Number(moved), new_bytes, PROT_READ | PROT_WRITE, another_view ? MAP_SHARED : MAP_PRIVATE, false});
  } else {
    Remapped(taken, Number(moved), RoundToPage(new_bytes));
  }
  TellV8(Number(old_address), old_bytes, true, true);
  TellV8(Number(moved), new_bytes, false, true);
  return moved;
}

NODELEAK_HOOK int mprotect(void* address, size_t bytes, int protection) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  return Protect(address, bytes, protection, [=] { return g_memory_originals.mprotect(address, bytes, protection); });
}

NODELEAK_HOOK int pkey_mprotect(void* address, size_t bytes, int protection, int key) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  return Protect(address, bytes, protection,
                 [=] { return g_memory_originals.pkey_mprotect(address, bytes, protection, key); });
}

NODELEAK_HOOK int brk(void* end) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  const int result = g_memory_originals.brk(end);
  if (result == 0 && Watching()) BreakMoved(Number(end));
  return result;
}

NODELEAK_HOOK void* sbrk(intptr_t increment) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  void* before = g_memory_originals.sbrk(increment);
  if (before != reinterpret_cast<void*>(-1) && increment != 0 && Watching()) {
    BreakMoved(Number(before) + static_cast<uint64_t>(increment));
  }
  return before;
}

// dlopen is not hooked: it looks at its caller (RUNPATH, $ORIGIN), which would be us. A new library is noticed at its
// first unknown pc.
NODELEAK_HOOK int dlclose(void* handle) {
  if (!MemoryOriginalsReady()) FindMemoryOriginals();
  const int result = g_memory_originals.dlclose(handle);  // destructors run in there: no Guard
  if (!Watching()) return result;
  Guard guard;
  if (RefreshModules()) ModulesGone();
  return result;
}
