#include "report/utf8.h"

#include <algorithm>
#include <iterator>

namespace nodeleak::report {
namespace {

struct LeadByte {
  int continuation_bytes;
  char32_t bits;
  char32_t smallest;  // below it the sequence is overlong
};

bool ReadLeadByte(uint8_t byte, LeadByte* lead) {
  if (byte < 0x80) {
    *lead = {0, byte, 0};
  } else if ((byte & 0xE0) == 0xC0) {
    *lead = {1, static_cast<char32_t>(byte & 0x1F), 0x80};
  } else if ((byte & 0xF0) == 0xE0) {
    *lead = {2, static_cast<char32_t>(byte & 0x0F), 0x800};
  } else if ((byte & 0xF8) == 0xF0) {
    *lead = {3, static_cast<char32_t>(byte & 0x07), 0x10000};
  } else {
    return false;
  }
  return true;
}

bool IsScalarValue(char32_t value) { return value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF); }

struct CodePointRange {
  char32_t first, last;
};
template <size_t kSize>
bool IsIn(const CodePointRange (&ranges)[kSize], char32_t value) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [value](const CodePointRange& range) { return value >= range.first && value <= range.last; });
}

// Unicode 15 EastAsianWidth W and F, by block: good enough for columns.
constexpr CodePointRange kWide[] = {{0x1100, 0x115F},   {0x231A, 0x231B},   {0x2E80, 0x303E},   {0x3041, 0x33FF},
                                    {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},   {0xA960, 0xA97C},
                                    {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},
                                    {0xFFE0, 0xFFE6},   {0x16FE0, 0x18AFF}, {0x1B000, 0x1B2FF}, {0x1F300, 0x1F64F},
                                    {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF}, {0x1FA70, 0x1FAFF}, {0x20000, 0x3FFFD}};
constexpr CodePointRange kZeroWidth[] = {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD},  {0x0610, 0x061A},
                                         {0x064B, 0x065F}, {0x0E31, 0x0E31}, {0x0E34, 0x0E3A},  {0x1AB0, 0x1AFF},
                                         {0x1DC0, 0x1DFF}, {0x200B, 0x200D}, {0x20D0, 0x20FF},  {0xFE00, 0xFE0F},
                                         {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}, {0xE0100, 0xE01EF}};
// C0, DEL and C1 controls; line and paragraph separators; marks and overrides of text direction.
constexpr CodePointRange kUnprintable[] = {{0x00, 0x1F},     {0x7F, 0x9F},     {0x061C, 0x061C}, {0x200E, 0x200F},
                                           {0x2028, 0x202E}, {0x2066, 0x2069}, {0xFFF9, 0xFFFB}};

}  // namespace

char32_t TakeCodePoint(std::string_view* text) {
  LeadByte lead;
  const bool valid_lead = ReadLeadByte(static_cast<uint8_t>(text->front()), &lead);
  if (!valid_lead || text->size() <= static_cast<size_t>(lead.continuation_bytes)) {
    text->remove_prefix(1);
    return kReplacement;
  }
  char32_t value = lead.bits;
  for (int i = 1; i <= lead.continuation_bytes; ++i) {
    const uint8_t byte = static_cast<uint8_t>((*text)[static_cast<size_t>(i)]);
    if ((byte & 0xC0) != 0x80) {
      text->remove_prefix(1);
      return kReplacement;
    }
    value = value << 6 | (byte & 0x3F);
  }
  if (value < lead.smallest || !IsScalarValue(value)) {
    text->remove_prefix(1);
    return kReplacement;
  }
  text->remove_prefix(static_cast<size_t>(lead.continuation_bytes) + 1);
  return value;
}

void AppendCodePoint(char32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
    return;
  }
  const int continuation_bytes = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  constexpr uint8_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out->push_back(static_cast<char>(kLead[continuation_bytes] | code_point >> (6 * continuation_bytes)));
  for (int i = continuation_bytes - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80 | ((code_point >> (6 * i)) & 0x3F)));
  }
}

int DisplayWidth(char32_t code_point) {
  if (code_point < 0x300) return 1;
  if (IsIn(kZeroWidth, code_point)) return 0;
  return IsIn(kWide, code_point) ? 2 : 1;
}

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) width += DisplayWidth(TakeCodePoint(&text));
  return width;
}

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const char32_t code_point = TakeCodePoint(&text);
    AppendCodePoint(IsIn(kUnprintable, code_point) ? U'?' : code_point, &out);
  }
  return out;
}

}  // namespace nodeleak::report
