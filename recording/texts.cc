#include "recording/texts.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace nodeleak::recording {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD

struct Decoded {
  uint32_t code_point;
  uint32_t bytes;  // 0: not UTF-8
};

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
Decoded DecodeUtf8(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const uint32_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return {0, 0};
  uint32_t code_point = first & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0, 0};
    code_point = code_point << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  if (code_point < kSmallest[length] || code_point > 0x10FFFF || surrogate) return {0, 0};
  return {code_point, length};
}

bool IsUnsafe(uint32_t code_point) {
  const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
  const bool bidi_override =
      (code_point >= 0x202A && code_point <= 0x202E) || (code_point >= 0x2066 && code_point <= 0x2069);
  return control || bidi_override;
}

}  // namespace

std::string CleanText(absl::string_view bytes, bool keep_lines) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Decoded decoded = DecodeUtf8(bytes);
    const bool kept_line = keep_lines && (bytes[0] == '\n' || bytes[0] == '\t');
    const bool good = decoded.bytes != 0 && (kept_line || !IsUnsafe(decoded.code_point));
    const size_t taken = decoded.bytes != 0 ? decoded.bytes : 1;
    absl::StrAppend(&text, good ? bytes.substr(0, taken) : kReplacement);
    bytes.remove_prefix(taken);
  }
  return text;
}

TextReader::TextReader(const std::vector<char>& bytes, Recording* recording)
    : bytes_(bytes.data(), bytes.size()), recording_(recording), budget_(2 * bytes.size() + (64 << 10)) {}

absl::string_view TextReader::Keep(std::string text) {
  if (text.empty()) return {};
  recording_->texts.push_back(std::move(text));
  return recording_->texts.back();
}

bool TextReader::Find(StringRef ref, absl::string_view* bytes) {
  if (ref.offset > bytes_.size() || ref.length > bytes_.size() - ref.offset || ref.length > budget_) {
    ++unreadable_;
    return false;
  }
  budget_ -= ref.length;
  *bytes = bytes_.substr(ref.offset, ref.length);
  return true;
}

absl::string_view TextReader::Read(StringRef ref) {
  if (ref.length == 0) return {};
  const uint64_t key = static_cast<uint64_t>(ref.offset) << 32 | ref.length;
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  absl::string_view bytes;
  if (!Find(ref, &bytes)) return {};
  return known_[key] = Keep(CleanText(bytes, /*keep_lines=*/false));
}

std::vector<absl::string_view> TextReader::ReadList(StringRef ref) {
  std::vector<absl::string_view> list;
  absl::string_view bytes;
  if (ref.length == 0 || !Find(ref, &bytes)) return list;
  // A million empty arguments take a million bytes in the file, but 16 each here.
  constexpr size_t kMaxArguments = 100'000;
  while (!bytes.empty() && list.size() < kMaxArguments) {
    const size_t end = bytes.find('\0');
    list.push_back(Keep(CleanText(bytes.substr(0, end), /*keep_lines=*/true)));
    if (end == absl::string_view::npos) break;
    bytes.remove_prefix(end + 1);
  }
  return list;
}

}  // namespace nodeleak::recording
