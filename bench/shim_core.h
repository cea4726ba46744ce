// The inside of node in an ordinary program: one recorder that writes into a file of its own, which goes at the end.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "preload/base/guard.h"
#include "preload/recorder/recorder.h"
#include "preload/recorder/recorder_state.h"
#include "preload/unwind/stack_walk.h"
#include "recording/layout.h"

namespace nodeleak::bench {

class ShimCore {
 public:
  explicit ShimCore(uint64_t max_bytes) {
    char directory[] = "/tmp/nodeleak-bench-XXXXXX";
    if (mkdtemp(directory) == nullptr) Fail("no temporary directory");
    directory_ = directory;
    path_ = directory_ + "/bench.rec";
    preload::RecorderOptions options = {};
    options.path_template = path_.c_str();
    options.max_bytes = max_bytes;
    options.flags = recording::kIsRootCommand;
    const char* why = "";
    if (!preload::StartRecording(options, &why)) Fail(why);
    if (!preload::StartStackWalk(false)) Fail("no unwind rules");
    __atomic_store_n(&preload::g_recorder.control->recording, 1u, __ATOMIC_RELEASE);
  }
  ~ShimCore() {
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }
  ShimCore(const ShimCore&) = delete;
  ShimCore& operator=(const ShimCore&) = delete;
  const std::string& path() const { return path_; }

  // As the hooks do it, without the allocation itself.
  static void Allocate(uint64_t address, uint64_t bytes) {
    preload::Guard guard;
    preload::Allocated(reinterpret_cast<void*>(address), bytes);
  }
  static void Free(uint64_t address) {
    preload::Guard guard;
    preload::Freeing(reinterpret_cast<void*>(address));
  }

 private:
  [[noreturn]] static void Fail(const char* why) {
    fprintf(stderr, "cannot record: %s\n", why);
    exit(2);
  }
  std::string directory_, path_;
};

}  // namespace nodeleak::bench
