// Outside. Loads libraries into another process from memory files, so that it does not matter which files it can see:
// memfd_create in it, their bytes through /proc/PID/fd, dlopen("/proc/self/fd/N"), close.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

// `path` with what it needs beside libc; libraries that the process has already (by DT_SONAME) are left out.
absl::Status InjectLibrary(const RemoteMemory& memory, const RemoteObjects& objects, const std::string& path);

}  // namespace nodeleak::tracer
