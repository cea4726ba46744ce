#include "symbolizer/punycode.h"

#include <cstdint>
#include <vector>

#include "symbolizer/utf8.h"

namespace nodeleak::symbolizer {
namespace {

// RFC 3492 section 5.
constexpr uint64_t kBase = 36;
constexpr uint64_t kThresholdMin = 1;
constexpr uint64_t kThresholdMax = 26;
constexpr uint64_t kSkew = 38;
constexpr uint64_t kDamp = 700;
constexpr uint64_t kInitialBias = 72;
constexpr uint64_t kInitialCode = 0x80;
constexpr size_t kMaxCharacters = 1024;  // inserting is quadratic

int DigitValue(char c) { return c >= 'a' && c <= 'z' ? c - 'a' : c >= '0' && c <= '9' ? c - '0' + 26 : -1; }

// RFC 3492 section 6.1.
uint64_t AdaptBias(uint64_t delta, uint64_t count, bool first) {
  delta /= first ? kDamp : 2;
  delta += delta / count;
  uint64_t steps = 0;
  for (; delta > (kBase - kThresholdMin) * kThresholdMax / 2; steps += kBase) delta /= kBase - kThresholdMin;
  return steps + (kBase - kThresholdMin + 1) * delta / (delta + kSkew);
}

}  // namespace

std::optional<std::string> DecodeRustPunycode(std::string_view text) {
  const size_t delimiter = text.rfind('_');
  std::u32string characters;
  if (delimiter != std::string_view::npos) {
    for (char c : text.substr(0, delimiter)) characters.push_back(static_cast<unsigned char>(c));
    text.remove_prefix(delimiter + 1);
  }
  uint64_t code = kInitialCode;
  uint64_t insert_at = 0;
  uint64_t bias = kInitialBias;
  while (!text.empty()) {
    if (characters.size() >= kMaxCharacters) return std::nullopt;
    const uint64_t before = insert_at;
    uint64_t weight = 1;
    for (uint64_t k = kBase;; k += kBase) {
      const int digit = text.empty() ? -1 : DigitValue(text[0]);
      if (digit < 0) return std::nullopt;
      text.remove_prefix(1);
      insert_at += static_cast<uint64_t>(digit) * weight;
      const uint64_t threshold = k <= bias ? kThresholdMin : k >= bias + kThresholdMax ? kThresholdMax : k - bias;
      if (static_cast<uint64_t>(digit) < threshold) break;
      weight *= kBase - threshold;
      if (insert_at > UINT32_MAX || weight > UINT32_MAX) return std::nullopt;
    }
    const uint64_t count = characters.size() + 1;
    bias = AdaptBias(insert_at - before, count, before == 0);
    code += insert_at / count;
    insert_at %= count;
    if (!IsScalarValue(code)) return std::nullopt;
    characters.insert(static_cast<size_t>(insert_at), 1, static_cast<char32_t>(code));
    ++insert_at;
  }
  std::string utf8;
  for (char32_t character : characters) AppendUtf8(character, utf8);
  return utf8;
}

}  // namespace nodeleak::symbolizer
