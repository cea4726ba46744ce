// Rust's first scheme: C++ nested names, with what C++ has no letters for escaped, and a hash as the last component.
#include <algorithm>
#include <bitset>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "symbolizer/rust_demangle.h"
#include "symbolizer/utf8.h"

namespace nodeleak::symbolizer {
namespace {

constexpr size_t kHashBytes = 17;         // "h" and 16 hexadecimal digits
constexpr size_t kMinDistinctDigits = 5;  // a real hash has many; a C++ function named h0000000000000000 has few

struct Escape {
  std::string_view name;
  char character;
};
// rustc_symbol_mangling/src/legacy.rs
constexpr Escape kEscapes[] = {{"SP", '@'}, {"BP", '*'}, {"RF", '&'}, {"LT", '<'},
                               {"GT", '>'}, {"LP", '('}, {"RP", ')'}, {"C", ','}};

int HexDigit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

bool IsHash(std::string_view component) {
  if (component.size() != kHashBytes || component[0] != 'h') return false;
  std::bitset<16> seen;
  for (char c : component.substr(1)) {
    int digit = HexDigit(c);
    if (digit < 0) return false;
    seen.set(static_cast<size_t>(digit));
  }
  return seen.count() >= kMinDistinctDigits;
}

// The components of _ZN<length><text>...E; empty when it is not of this form.
std::vector<std::string_view> Split(std::string_view symbol) {
  std::vector<std::string_view> components;
  if (!symbol.starts_with("_ZN")) return {};
  symbol.remove_prefix(3);
  while (!symbol.empty() && absl::ascii_isdigit(static_cast<unsigned char>(symbol[0]))) {
    size_t digits = std::min(symbol.find_first_not_of("0123456789"), symbol.size());
    size_t length = 0;
    if (!absl::SimpleAtoi(std::string(symbol.substr(0, digits)), &length) || length > symbol.size() - digits) return {};
    components.push_back(symbol.substr(digits, length));
    symbol.remove_prefix(digits + length);
  }
  // After the E only a mark of the compiler (".cold", ".isra.0").
  const bool ends = symbol == "E" || symbol.starts_with("E.");
  return ends ? components : std::vector<std::string_view>();
}

// The text of one $...$; nothing when it is no escape.
std::optional<std::string> Unescape(std::string_view name) {
  for (const Escape& escape : kEscapes) {
    if (name == escape.name) return std::string(1, escape.character);
  }
  if (name.size() < 2 || name.size() > 7 || name[0] != 'u') return std::nullopt;
  uint32_t code = 0;
  for (char c : name.substr(1)) {
    int digit = HexDigit(c);
    if (digit < 0) return std::nullopt;
    code = code * 16 + static_cast<uint32_t>(digit);
  }
  if (!IsScalarValue(code) || code < 0x20 || code == 0x7f) return std::nullopt;
  std::string text;
  AppendUtf8(code, text);
  return text;
}

std::string DecodeComponent(std::string_view component) {
  std::string text;
  // Identifiers may not start with $: an underscore was put before it.
  if (component.starts_with("_$")) component.remove_prefix(1);
  while (!component.empty()) {
    if (component.starts_with("..")) {
      text += "::";
      component.remove_prefix(2);
      continue;
    }
    if (component[0] == '$') {
      size_t end = component.find('$', 1);
      std::optional<std::string> escaped;
      if (end != std::string_view::npos) escaped = Unescape(component.substr(1, end - 1));
      if (escaped) {
        text += *escaped;
        component.remove_prefix(end + 1);
        continue;
      }
    }
    text.push_back(component[0]);
    component.remove_prefix(1);
  }
  return text;
}

}  // namespace

std::optional<std::string> DemangleRustLegacy(std::string_view symbol) {
  std::vector<std::string_view> components = Split(symbol);
  if (components.size() < 2 || !IsHash(components.back())) return std::nullopt;
  components.pop_back();
  return absl::StrJoin(components,
                       "::", [](std::string* out, std::string_view component) { *out += DecodeComponent(component); });
}

std::optional<std::string> DemangleRust(std::string_view symbol) {
  if (symbol.starts_with("_R")) return DemangleRustV0(symbol);
  return DemangleRustLegacy(symbol);
}

}  // namespace nodeleak::symbolizer
