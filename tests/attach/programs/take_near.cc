// For LD_PRELOAD: takes the addresses next to the program's libraries, so that a library that is loaded later comes to
// lie more than 2 GiB from them.
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

__attribute__((constructor)) void TakeWhatIsNear() {
  constexpr size_t kBytes = size_t{8} << 30;
  const void* taken = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (taken == MAP_FAILED) _exit(1);
}

}  // namespace
