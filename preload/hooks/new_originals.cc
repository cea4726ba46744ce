#include "preload/hooks/new_originals.h"

#include <dlfcn.h>
#include <link.h>
#include <stdint.h>

#include "preload/hooks/memory_originals.h"

namespace nodeleak::preload {

constinit NewOriginals g_new_originals = {};

namespace {

struct TwoAddresses {
  uint64_t first, second;
};

bool Contains(const dl_phdr_info& object, uint64_t address) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = object.dlpi_phdr[i];
    const uint64_t start = object.dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && address >= start && address < start + part.p_memsz) return true;
  }
  return false;
}

int HoldsBoth(dl_phdr_info* object, size_t, void* data) {
  const auto* addresses = static_cast<const TwoAddresses*>(data);
  return Contains(*object, addresses->first) && Contains(*object, addresses->second) ? 1 : 0;
}

bool InOneLibrary(void* first, void* second) {
  TwoAddresses addresses = {reinterpret_cast<uint64_t>(first), reinterpret_cast<uint64_t>(second)};
  return dl_iterate_phdr(HoldsBoth, &addresses) != 0;
}

template <typename Function>
void Find(const char* symbol, NewOriginal<Function>* original) {
  void* found = dlsym(RTLD_NEXT, symbol);
  original->call = reinterpret_cast<Function*>(found);
  original->allocates = found != nullptr && InOneLibrary(reinterpret_cast<void*>(g_memory_originals.malloc), found);
}

}  // namespace

void FindNewOriginals() {
  // A dlsym that fails is slow: a program without C++ is spared the others.
  if (dlsym(RTLD_NEXT, "_Znwm") == nullptr) return;
#define ROW(symbol, ...) Find(#symbol, &g_new_originals.symbol);
  NODELEAK_NEW_ORIGINALS(ROW)
#undef ROW
}

}  // namespace nodeleak::preload
