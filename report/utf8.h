// Outside node. Text out of recordings is bytes that anybody may have written; everything here accepts any bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nodeleak::report {

inline constexpr char32_t kReplacement = 0xFFFD;

// Takes one code point off the front of *text (not empty). Ill-formed bytes (overlong, surrogate, cut short, above
// U+10FFFF) are taken one byte at a time and read as U+FFFD.
char32_t TakeCodePoint(std::string_view* text);
void AppendCodePoint(char32_t code_point, std::string* out);

// Columns on a terminal: 0 for combining marks, 2 for East Asian wide and emoji, otherwise 1.
int DisplayWidth(char32_t code_point);
int DisplayWidth(std::string_view text);

// For a terminal: ill-formed bytes become U+FFFD; control characters, escape sequences and marks that reorder text
// (bidirectional overrides) become "?" so that a recording cannot drive the reader's terminal.
std::string Printable(std::string_view text);

}  // namespace nodeleak::report
