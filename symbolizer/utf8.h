// Outside node. Unicode scalar values to UTF-8.
#pragma once

#include <cstdint>
#include <string>

namespace nodeleak::symbolizer {

inline bool IsScalarValue(uint64_t code) { return code <= 0x10ffff && (code < 0xd800 || code > 0xdfff); }

// `code` is a scalar value.
inline void AppendUtf8(char32_t code, std::string& out) {
  auto byte = [&out](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | (code >> 6));
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3f));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

}  // namespace nodeleak::symbolizer
