#include "cli/quantities.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace nodeleak::cli {
namespace {

struct Unit {
  const char* name;
  double factor;
};

constexpr Unit kSizeUnits[] = {
    {"", 1},         {"b", 1},      {"k", 0x1p10}, {"kb", 1e3},     {"kib", 0x1p10}, {"m", 0x1p20}, {"mb", 1e6},
    {"mib", 0x1p20}, {"g", 0x1p30}, {"gb", 1e9},   {"gib", 0x1p30}, {"t", 0x1p40},   {"tb", 1e12},  {"tib", 0x1p40},
};
constexpr Unit kDurationUnits[] = {{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"min", 60e3}, {"h", 3600e3}};

constexpr double kLargest = 0x1p62;

// Nothing of it is a number followed by a unit: false.
bool ParseQuantity(absl::string_view text, absl::Span<const Unit> units, uint64_t* out) {
  size_t digits = 0;
  while (digits < text.size() && (absl::ascii_isdigit(text[digits]) || text[digits] == '.')) ++digits;
  double number;
  if (digits == 0 || !absl::SimpleAtod(text.substr(0, digits), &number)) return false;
  absl::string_view suffix = absl::StripAsciiWhitespace(text.substr(digits));
  for (const Unit& unit : units) {
    if (!absl::EqualsIgnoreCase(suffix, unit.name)) continue;
    double value = number * unit.factor;
    if (!(value <= kLargest)) return false;
    *out = static_cast<uint64_t>(std::llround(value));
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(absl::string_view text) {
  uint64_t bytes;
  if (ParseQuantity(text, kSizeUnits, &bytes)) return bytes;
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not a size; write for example 4096, 64KiB or 1.5MB"));
}

absl::StatusOr<uint64_t> ParseDuration(absl::string_view text) {
  uint64_t milliseconds;
  if (ParseQuantity(text, kDurationUnits, &milliseconds)) return milliseconds;
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not a duration; write for example 500ms, 60s or 5m"));
}

}  // namespace nodeleak::cli
