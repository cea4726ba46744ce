// Outside node. The letters of Rust's v0 mangling, below its grammar (rust_v0.cc): numbers, identifiers, lists,
// references back, and the text that is printed meanwhile. The first error sticks: everything afterwards reads and
// prints nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "symbolizer/punycode.h"

namespace nodeleak::symbolizer {

inline bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
inline bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
inline bool IsDigit(char c) { return c >= '0' && c <= '9'; }

struct RustIdentifier {
  uint64_t disambiguator = 0;
  std::string name;
};

class RustV0Reader {
 protected:
  // References back into the symbol make exponentially long names possible.
  static constexpr int kMaxDepth = 256;
  static constexpr size_t kMaxOutput = 64 << 10;

  explicit RustV0Reader(std::string_view text) : text_(text) {}

  char Peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  char Next() {
    if (position_ >= text_.size()) {
      failed_ = true;
      return '\0';
    }
    return text_[position_++];
  }

  bool Eat(char c) {
    if (failed_ || Peek() != c) return false;
    ++position_;
    return true;
  }

  void Print(std::string_view text) {
    if (quiet_ || failed_) return;
    if (out_.size() + text.size() > kMaxOutput) {
      failed_ = true;
      return;
    }
    out_ += text;
  }

  template <typename Production>
  void Quietly(Production production) {
    const bool before = quiet_;
    quiet_ = true;
    production();
    quiet_ = before;
  }

  // Counts depth for the lifetime of one production; failed when too deep.
  class Nesting {
   public:
    explicit Nesting(RustV0Reader& reader) : reader_(reader) {
      if (++reader_.depth_ > kMaxDepth) reader_.failed_ = true;
    }
    ~Nesting() { --reader_.depth_; }

   private:
    RustV0Reader& reader_;
  };

  // {item} "E", separated by commas; returns how many.
  template <typename Item>
  size_t ListUntilE(Item item) {
    size_t count = 0;
    while (!failed_ && !Eat('E')) {
      if (count++ > 0) Print(", ");
      item();
    }
    return count;
  }

  // base-62-number: "_" is 0, "0_" is 1.
  uint64_t Base62() {
    if (Eat('_')) return 0;
    uint64_t value = 0;
    while (!failed_) {
      const char c = Next();
      if (c == '_') return value == UINT64_MAX ? Fail() : value + 1;
      uint64_t digit = IsDigit(c)   ? static_cast<uint64_t>(c - '0')
                       : IsLower(c) ? static_cast<uint64_t>(c - 'a') + 10
                       : IsUpper(c) ? static_cast<uint64_t>(c - 'A') + 36
                                    : Fail();
      if (__builtin_mul_overflow(value, 62, &value) || __builtin_add_overflow(value, digit, &value)) return Fail();
    }
    return 0;
  }

  uint64_t Fail() {
    failed_ = true;
    return 0;
  }

  // An optional base-62-number after `tag`: absent is 0, "_" is 1.
  uint64_t OptionalBase62(char tag) {
    if (!Eat(tag)) return 0;
    const uint64_t value = Base62();
    return value == UINT64_MAX ? Fail() : value + 1;
  }

  std::string UndisambiguatedIdentifier() {
    const bool punycode = Eat('u');
    if (!IsDigit(Peek())) {
      failed_ = true;
      return "";
    }
    size_t length = 0;
    if (!Eat('0')) {
      while (IsDigit(Peek())) {
        length = length * 10 + static_cast<size_t>(Next() - '0');
        if (length > text_.size()) break;
      }
    }
    Eat('_');
    if (length > text_.size() - position_) {
      failed_ = true;
      return "";
    }
    std::string_view bytes = text_.substr(position_, length);
    position_ += length;
    if (!punycode) return std::string(bytes);
    std::optional<std::string> decoded = DecodeRustPunycode(bytes);
    return decoded ? *decoded : absl::StrCat("punycode{", std::string(bytes), "}");
  }

  RustIdentifier DisambiguatedIdentifier() {
    RustIdentifier identifier;
    identifier.disambiguator = OptionalBase62('s');
    identifier.name = UndisambiguatedIdentifier();
    return identifier;
  }

  // "B" has been read. Continues at the earlier position, then comes back.
  template <typename Production>
  void BackReference(Production production) {
    const size_t here = position_ - 1;
    const uint64_t target = Base62();
    if (failed_ || target >= here) {  // only backwards: this ends
      failed_ = true;
      return;
    }
    if (quiet_) return;
    const size_t after = position_;
    position_ = static_cast<size_t>(target);
    Nesting nesting(*this);
    if (!failed_) production();
    position_ = after;
  }

  // {hex-digit} "_"
  std::string_view HexDigits() {
    const size_t start = position_;
    while (!failed_) {
      const char c = Next();
      if (c == '_') return text_.substr(start, position_ - 1 - start);
      if (!IsDigit(c) && !(c >= 'a' && c <= 'f')) failed_ = true;
    }
    return "";
  }

  static uint64_t HexValue(std::string_view digits) {
    uint64_t value = 0;
    for (char c : digits) value = value << 4 | static_cast<uint64_t>(IsDigit(c) ? c - '0' : c - 'a' + 10);
    return value;
  }

  static std::string_view WithoutLeadingZeros(std::string_view digits) {
    const size_t first = std::min(digits.find_first_not_of('0'), digits.size());
    return digits.substr(first);
  }

  std::string_view text_;
  size_t position_ = 0;
  std::string out_;
  int depth_ = 0;
  bool quiet_ = false;
  bool failed_ = false;
};

}  // namespace nodeleak::symbolizer
