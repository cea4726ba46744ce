// Outside. Lets an older glibc load a library that was linked with a newer one: in a container of an older
// distribution, to which the recorder comes from the host.
#pragma once

#include <functional>
#include <string>

#include "tracer/library_image.h"

namespace nodeleak::tracer {

// What the C library of a process has.
struct LibcFeatures {
  std::function<bool(const std::string& library, const std::string& version)> defines_version;
  std::function<bool(const char* name)> has_function;
};

// Where the process's glibc does not have a version that the image asks for, its functions are asked for by name alone:
// a function that moved from libpthread or libdl into libc (2.32, 2.34) got a new version there, and is the same one.
// What is missing altogether stays missing; the dynamic linker says so. Changes nothing for a libc that is new enough.
void FitToOlderLibc(const LibcFeatures& libc, LibraryImage* image);

}  // namespace nodeleak::tracer
