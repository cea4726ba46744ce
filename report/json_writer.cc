#include "report/json_writer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

const char* ShortEscape(char32_t code_point) {
  switch (code_point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return nullptr;
  }
}

// U+2028 and U+2029 are legal in JSON but end a line in older JavaScript, into which HTML reports paste JSON.
bool NeedsNumericEscape(char32_t code_point) {
  return code_point < 0x20 || code_point == 0x7F || code_point == 0x2028 || code_point == 0x2029;
}

}  // namespace

std::string JsonEscape(std::string_view value) {
  std::string out;
  out.reserve(value.size() + 2);
  while (!value.empty()) {
    const char32_t code_point = TakeCodePoint(&value);
    if (const char* escape = ShortEscape(code_point)) {
      out += escape;
    } else if (NeedsNumericEscape(code_point)) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(code_point));
    } else {
      AppendCodePoint(code_point, &out);
    }
  }
  return out;
}

void JsonWriter::NewLine() {
  if (compact()) return;
  out_.push_back('\n');
  out_.append(2 * has_element_.size(), ' ');
}

void JsonWriter::BeforeValue() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (has_element_.empty()) return;
  if (has_element_.back()) out_ += compact() ? ", " : ",";
  has_element_.back() = true;
  NewLine();
}

void JsonWriter::Open(char bracket) {
  BeforeValue();
  out_.push_back(bracket);
  has_element_.push_back(false);
}

void JsonWriter::BeginCompactObject() {
  BeforeValue();
  out_.push_back('{');
  has_element_.push_back(false);
  if (!compact()) compact_depth_ = has_element_.size();
}

void JsonWriter::Close(char bracket) {
  const bool had_element = has_element_.back();
  const bool ends_compact = compact_depth_ == has_element_.size();
  has_element_.pop_back();
  if (had_element) NewLine();
  out_.push_back(bracket);
  if (ends_compact) compact_depth_ = 0;
}

void JsonWriter::Key(std::string_view key) {
  BeforeValue();
  absl::StrAppend(&out_, "\"", JsonEscape(key), "\": ");
  after_key_ = true;
}

void JsonWriter::String(std::string_view value) {
  BeforeValue();
  absl::StrAppend(&out_, "\"", JsonEscape(value), "\"");
}

void JsonWriter::Integer(uint64_t value) {
  BeforeValue();
  absl::StrAppend(&out_, value);
}

void JsonWriter::Signed(int64_t value) {
  BeforeValue();
  absl::StrAppend(&out_, value);
}

void JsonWriter::Seconds(double value) {
  BeforeValue();
  absl::StrAppendFormat(&out_, "%.3f", std::isfinite(value) ? value : 0.0);
}

void JsonWriter::Bool(bool value) {
  BeforeValue();
  out_ += value ? "true" : "false";
}

void JsonWriter::Null() {
  BeforeValue();
  out_ += "null";
}

}  // namespace nodeleak::report
