// A scan of JSON text for two strings at the top level. Not a JSON parser: it skips what it does not need, by brackets.
#include "symbolizer/package.h"
#include "symbolizer/utf8.h"

namespace nodeleak::symbolizer {
namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  PackageJson Run() {
    PackageJson json;
    if (text_.starts_with("\xef\xbb\xbf")) position_ = 3;  // byte order mark
    SkipSpace();
    if (!Eat('{')) return json;
    while (true) {
      std::optional<std::string> key = String();
      if (!key || !Eat(':')) return json;
      SkipSpace();
      std::string* wanted = *key == "name" ? &json.name : *key == "version" ? &json.version : nullptr;
      if (wanted != nullptr && Peek() == '"') {
        std::optional<std::string> value = String();
        if (!value) return json;
        *wanted = *value;  // JSON.parse: the last one of a key counts
      } else {
        SkipValue();
      }
      if (!Eat(',')) return json;
    }
  }

 private:
  char Peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  void SkipSpace() {
    while (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r') ++position_;
  }

  bool Eat(char c) {
    SkipSpace();
    if (Peek() != c) return false;
    ++position_;
    return true;
  }

  std::optional<std::string> String() {
    if (!Eat('"')) return std::nullopt;
    std::string value;
    while (position_ < text_.size()) {
      const char c = text_[position_++];
      if (c == '"') return value;
      if (c == '\\') {
        if (!Escape(value)) return std::nullopt;
      } else {
        value.push_back(c);
      }
    }
    return std::nullopt;
  }

  bool Escape(std::string& value) {
    const char c = Peek();
    ++position_;
    switch (c) {
      case 'n':
        value.push_back('\n');
        return true;
      case 't':
        value.push_back('\t');
        return true;
      case 'b':
      case 'f':
      case 'r':
        value.push_back(' ');
        return true;
      case 'u':
        return UnicodeEscape(value);
      default:
        value.push_back(c);
        return c != '\0';
    }
  }

  bool UnicodeEscape(std::string& value) {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = Peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return false;
      code = code * 16 + static_cast<uint32_t>(digit);
      ++position_;
    }
    // Halves of surrogate pairs do not occur in names and versions of packages.
    AppendUtf8(IsScalarValue(code) ? static_cast<char32_t>(code) : U'\ufffd', value);
    return true;
  }

  // Up to the comma or bracket that ends a value of the top level.
  void SkipValue() {
    for (size_t depth = 0; position_ < text_.size();) {
      const char c = Peek();
      if (c == '"') {
        if (!String()) return;
        continue;
      }
      if (depth == 0 && (c == ',' || c == '}')) return;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && depth > 0) --depth;
      ++position_;
    }
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

PackageJson ParsePackageJson(std::string_view text) { return Scanner(text).Run(); }

}  // namespace nodeleak::symbolizer
