// Runs inside node, also in a vfork child (in its parent's memory): no allocation, no lock, raw system calls.
//
// Can the program that an exec names take the shim? musl's dynamic linker ends a process that preloads a library for
// glibc; glibc's own says on the program's stderr when it cannot open the library, or when the program is a 32-bit one.
#pragma once

namespace nodeleak::preload {

// What an exec names: a path, or a name to be looked up in PATH, or an open file.
struct ExecTarget {
  const char* path;  // nullptr: the open file
  bool search_path;
  int file;
};

// True also where it cannot be told: what cannot be read may be run.
bool TakesShim(const ExecTarget& target, const char* shim);

}  // namespace nodeleak::preload
