#include "tracer/unsafe_code.h"

#include <algorithm>

#include "tracer/remote_unwind.h"

namespace nodeleak::tracer {
namespace {

constexpr const char* kAllocator[] = {"malloc",         "free",   "calloc",      "realloc", "memalign",
                                      "posix_memalign", "valloc", "malloc_trim", "mallopt", "malloc_usable_size"};
// Hold locks that dlopen or pthread_create take.
constexpr const char* kSingleFunctions[] = {"dl_iterate_phdr", "fork", "pthread_create", "exit", "quick_exit"};

// glibc's malloc.o is one piece of text: what the exported functions call lies between and in front of them.
constexpr uint64_t kInFrontOfMalloc = 0x5000;
constexpr uint64_t kBehindMalloc = 0x800;

constexpr size_t kStackWords = 4096;  // 32 KiB: a signal frame with AVX-512 state takes 3
constexpr size_t kBelievableFrames = 3;

RemoteRange AllocatorRange(const RemoteObjects& objects, const RemoteObject& object) {
  if (object.BaseName().substr(0, 7) != "libc.so") return object.range;  // jemalloc and its like: all of it
  uint64_t low = UINT64_MAX, high = 0;
  for (const char* name : kAllocator) {
    const auto symbol = objects.FindSymbol(object, name);
    if (!symbol.has_value()) continue;
    low = std::min(low, ToNumber(symbol->address));
    high = std::max(high, ToNumber(symbol->address) + symbol->bytes);
  }
  return {static_cast<RemoteAddress>(low - kInFrontOfMalloc), static_cast<RemoteAddress>(high + kBehindMalloc)};
}

}  // namespace

UnsafeCode::UnsafeCode(const RemoteObjects& objects, const ShimInProcess* shim) : objects_(&objects) {
  if (const RemoteObject* allocator = objects.FindDefinition("malloc", shim == nullptr ? nullptr : &shim->object()))
    parts_.push_back({AllocatorRange(objects, *allocator), "the allocator"});
  if (const RemoteObject* libc = objects.FindByBaseName("libc.so"))
    parts_.push_back({AllocatorRange(objects, *libc), "the allocator"});
  for (const char* library : {"libc.so", "libpthread.so"}) {  // glibc before 2.34 has threads in a library of their own
    const RemoteObject* object = objects.FindByBaseName(library);
    if (object == nullptr) continue;
    for (const char* name : kSingleFunctions)
      if (const auto symbol = objects.FindSymbol(*object, name))
        parts_.push_back({{symbol->address, symbol->address + symbol->bytes}, name});
  }
  if (const RemoteObject* loader = objects.FindByBaseName("ld-linux"))
    parts_.push_back({loader->range, "the dynamic linker"});
  if (shim == nullptr) return;
  for (const RemoteRange& range : shim->Code()) parts_.push_back({range, "nodeleak's own recorder"});
}

const UnsafeCode::Part* UnsafeCode::PartOf(uint64_t address) const {
  for (const Part& part : parts_)
    if (part.range.Contains(address)) return &part;
  return nullptr;
}

std::string UnsafeCode::Find(const RemoteMemory& memory, const user_regs_struct& registers) const {
  if (const Part* part = PartOf(registers.rip)) return part->what;
  const std::vector<uint64_t> words = memory.ReadWords(static_cast<RemoteAddress>(registers.rsp), kStackWords);
  const auto suspect = std::find_if(words.begin(), words.end(), [&](uint64_t word) { return PartOf(word) != nullptr; });
  if (suspect == words.end()) return "";
  const std::vector<RemoteFrame> frames = UnwindStack(memory, *objects_, registers);
  if (frames.size() < kBelievableFrames) return PartOf(*suspect)->what;
  for (const RemoteFrame& frame : frames)
    if (const Part* part = PartOf(frame.pc)) return part->what;
  return "";
}

}  // namespace nodeleak::tracer
