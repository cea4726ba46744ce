// Outside node. Numbers and words for people, and lines that fit. Widths are columns of a terminal, not bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nodeleak::report {

std::string FormatBytes(uint64_t bytes);                      // "999 B", "41.2 MiB": three or four digits
std::string FormatCount(uint64_t count);                      // "1,234,567"
std::string FormatSeconds(double seconds);                    // "0.42 s", "12.3 s", "3 m 20 s", "2 h 5 m"
std::string FormatRate(double count, std::string_view word);  // "12 blocks", "0.4 blocks"
std::string FormatShare(uint64_t part, uint64_t whole);       // "67 %", "<1 %"; "" when whole is 0
std::string Plural(uint64_t count, std::string_view word);    // "1 block", "1,234 blocks"

// "28.6 MiB in 600 blocks"; "~28.6 MiB ± 1.2 MiB in ~600 blocks" when it was estimated from samples.
std::string EstimateText(uint64_t bytes, std::optional<uint64_t> error, uint64_t blocks);
// "~" in front of an estimate, else nothing. What was recorded for sure has an error of 0.
std::string_view EstimateMark(std::optional<uint64_t> error);

// `text` in at most `columns` columns: cut with "…" in the middle (for paths and names) or at the end.
std::string FitMiddle(std::string_view text, int columns);
std::string FitEnd(std::string_view text, int columns);
std::string PadRight(std::string_view text, int columns);  // fitted, then filled up with blanks
std::string PadLeft(std::string_view text, int columns);

// Breaks at blanks; a word longer than a line is cut. The first line is not indented, the others by `indent`; no line
// is longer than columns, the first one `indent` shorter.
std::string Wrap(std::string_view text, int indent, int columns);

// Relative to `directory` when it is inside, otherwise as it is.
std::string RelativePath(std::string_view path, std::string_view directory);
// "src/server.js:12:20"; zero numbers are left out. In at most `columns` columns; the numbers are never cut.
std::string Location(std::string_view file, uint32_t line, uint32_t column, std::string_view directory, int columns);

}  // namespace nodeleak::report
