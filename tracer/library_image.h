// Outside. The bytes of a library as another process gets them, and what else it needs there.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nodeleak::tracer {

struct LibraryImage {
  std::string name;   // DT_SONAME, or the file's name
  std::string bytes;  // up to the end of the last loaded segment: no debug information, no section headers
  std::vector<std::string> needed;
  // Where in `bytes` the dynamic linker's tables are; kNoTable: it has none.
  static constexpr uint64_t kNoTable = ~uint64_t{0};
  uint64_t strings = kNoTable, symbols = kNoTable, symbol_versions = kNoTable, needed_versions = kNoTable;
  uint64_t hash = kNoTable;
};

absl::StatusOr<LibraryImage> ReadLibraryImage(const std::string& path);

// `path` and the libraries that it needs beside libc's own, found as this process itself has them loaded; each behind
// what it needs.
absl::StatusOr<std::vector<LibraryImage>> ReadLibraryWithNeeded(const std::string& path);

}  // namespace nodeleak::tracer
