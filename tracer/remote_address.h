// Outside. An address in another process: a number that cannot be dereferenced here.
#pragma once

#include <stdint.h>

namespace nodeleak::tracer {

enum class RemoteAddress : uint64_t { kNull = 0 };

constexpr uint64_t ToNumber(RemoteAddress address) { return static_cast<uint64_t>(address); }
constexpr RemoteAddress operator+(RemoteAddress address, uint64_t bytes) {
  return static_cast<RemoteAddress>(ToNumber(address) + bytes);
}

// [start, end)
struct RemoteRange {
  RemoteAddress start = RemoteAddress::kNull, end = RemoteAddress::kNull;
  bool Contains(uint64_t address) const { return address >= ToNumber(start) && address < ToNumber(end); }
  uint64_t bytes() const { return ToNumber(end) - ToNumber(start); }
};

}  // namespace nodeleak::tracer
