#include "preload/hooks/process_originals.h"

#include <dlfcn.h>

namespace nodeleak::preload {
namespace {

ProcessOriginals g_originals;
bool g_complete;

// Twice at the same time is harmless: both find the same.
void Find() {
#define ROW(member, symbol, ...) \
  g_originals.member = reinterpret_cast<ProcessOriginals::member##_type*>(dlsym(RTLD_NEXT, symbol));
  NODELEAK_PROCESS_ORIGINALS(ROW)
#undef ROW
  __atomic_store_n(&g_complete, true, __ATOMIC_RELEASE);
}

}  // namespace

const ProcessOriginals& process_originals() {
  if (!__atomic_load_n(&g_complete, __ATOMIC_ACQUIRE)) Find();
  return g_originals;
}

ProcessOriginals& MutableProcessOriginals() { return g_originals; }

}  // namespace nodeleak::preload
