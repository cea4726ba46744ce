// Runs inside node, on any thread, possibly inside malloc. Never allocates through a hooked allocator, waits or throws.
//
// Line and column of a position in a script. V8 makes its own table of line ends only when somebody asks it; ours are
// kept per (isolate generation, script id) within a fixed budget of mapped memory.
#pragma once

#include <stdint.h>

#include "preload/v8/strings.h"

namespace nodeleak::preload::v8 {

// 1-based; 0 unknown.
struct LineColumn {
  uint32_t line;
  uint32_t column;
};

// `position` counts UTF-16 units of the source. The script's own line and column offsets (vm.Script) are added.
LineColumn FindLineColumn(uint32_t isolate_generation, uint64_t script, int32_t position);

// Counts line ends as V8 does: \n, \r\n, \r, U+2028, U+2029. ends[i] is the position of the last character of the i-th
// terminator. Splits over pieces anywhere.
class LineEndCollector final : public StringSink {
 public:
  LineEndCollector() = default;
  ~LineEndCollector();
  LineEndCollector(const LineEndCollector&) = delete;
  LineEndCollector& operator=(const LineEndCollector&) = delete;
  bool Take(const StringPiece& piece) override;
  void Finish();  // after the last piece

  const uint32_t* ends() const { return ends_; }
  uint32_t count() const { return count_; }
  uint32_t capacity() const { return capacity_; }
  void Release() { ends_ = nullptr; }  // the caller keeps the memory

 private:
  bool Add(uint32_t position);
  uint32_t* ends_ = nullptr;
  uint32_t count_ = 0, capacity_ = 0;
  uint32_t position_ = 0;
  bool carriage_return_ = false;
};

// 0-based line and column of `position` among sorted line ends.
LineColumn FindInLineEnds(const uint32_t* ends, uint32_t count, uint32_t position);

}  // namespace nodeleak::preload::v8
