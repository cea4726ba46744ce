#include "preload/unwind/table_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "preload/base/system.h"

namespace nodeleak::preload {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSmallTableBytes = 512 << 10;  // 65,536 functions; node has three times as many
constexpr uint32_t kFewUses = 16;                 // more may follow

const ModuleInfo* g_module;
uint64_t g_low = UINT64_MAX, g_high;  // of .eh_frame, as far as it was read
uint32_t g_uses;
uint32_t g_released_uses, g_seen_uses;  // when pages were let go, and when that was last asked

// Documentation/admin-guide/mm/pagemap.rst of Linux: 63 present, 62 swapped, 61 a page of a file.
bool IsOfFile(uint64_t page) { return (page >> 61 & 1) != 0 || page >> 62 == 0; }

bool AllOfFile(long pagemap, uint64_t start, uint64_t end) {
  uint64_t pages[512];
  while (start < end) {
    const uint64_t left = (end - start) / kPageBytes;
    const uint64_t count = left < 512 ? left : 512;
    const auto bytes = static_cast<long>(count * sizeof pages[0]);
    const auto offset = static_cast<long>(start / kPageBytes * sizeof pages[0]);
    if (RawSyscall(SYS_pread64, pagemap, reinterpret_cast<long>(pages), bytes, offset) != bytes) return false;
    for (uint64_t i = 0; i < count; ++i) {
      if (!IsOfFile(pages[i])) return false;
    }
    start += count * kPageBytes;
  }
  return true;
}

// Only whole pages of it: what lies beside may be the program's.
void Release(long pagemap, uint64_t start, uint64_t end) {
  start = (start + kPageBytes - 1) / kPageBytes * kPageBytes;
  end = end / kPageBytes * kPageBytes;
  if (start >= end || !AllOfFile(pagemap, start, end)) return;
  RawSyscall(SYS_madvise, static_cast<long>(start), static_cast<long>(end - start), MADV_DONTNEED);
}

}  // namespace

void NoteTableUse(const ModuleInfo& module, uint64_t start, uint64_t end) {
  if (module.unwind_table_bytes < kSmallTableBytes || start < module.start || end > module.end) return;
  const ModuleInfo* noted = __atomic_load_n(&g_module, __ATOMIC_ACQUIRE);
  if (noted == nullptr) {
    if (!__atomic_compare_exchange_n(&g_module, &noted, &module, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) &&
        noted != &module)
      return;
  } else if (noted != &module) {
    return;
  }
  // A bound that another thread overwrites is widened by the next use; too narrow does no harm.
  if (start < __atomic_load_n(&g_low, __ATOMIC_RELAXED)) __atomic_store_n(&g_low, start, __ATOMIC_RELAXED);
  if (end > __atomic_load_n(&g_high, __ATOMIC_RELAXED)) __atomic_store_n(&g_high, end, __ATOMIC_RELAXED);
  __atomic_fetch_add(&g_uses, 1, __ATOMIC_RELAXED);
}

void ReleaseTablePages() {
  const ModuleInfo* module = __atomic_load_n(&g_module, __ATOMIC_ACQUIRE);
  const uint32_t uses = __atomic_load_n(&g_uses, __ATOMIC_RELAXED);
  if (module == nullptr || uses == g_released_uses || !__atomic_load_n(&module->loaded, __ATOMIC_ACQUIRE)) return;
  const bool go_on = uses != g_seen_uses;
  g_seen_uses = uses;
  if (go_on && uses - g_released_uses < kFewUses) return;
  g_released_uses = uses;
  const long pagemap =
      RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>("/proc/thread-self/pagemap"), O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return;
  Release(pagemap, module->unwind_table, module->unwind_table + module->unwind_table_bytes);
  Release(pagemap, __atomic_load_n(&g_low, __ATOMIC_RELAXED), __atomic_load_n(&g_high, __ATOMIC_RELAXED));
  RawSyscall(SYS_close, pagemap);
}

}  // namespace nodeleak::preload
