#include "preload/v8/strings.h"

#include <string.h>

#include "preload/v8/heap_reader.h"

namespace nodeleak::preload::v8 {

namespace {

// Low bits of a string's instance type (v8dbg_StringRepresentationMask and friends: the same in all versions seen).
constexpr int32_t kFirstNonString = 128;
constexpr int32_t kRepresentationMask = 7;
constexpr int32_t kOneByte = 8;
constexpr int32_t kUncachedExternal = 16;  // only the resource's virtual function knows the data
enum Representation { kSequential = 0, kCons = 1, kExternal = 2, kSliced = 3, kThin = 5 };
constexpr int32_t kSequentialData = 16;
constexpr int32_t kExternalData = 24;
constexpr int kMostNesting = 64;

// [skip, skip + count) of a string.
struct Span {
  uint64_t string;
  uint32_t skip;
  uint32_t count;
};

bool VisitCharacters(uint64_t address, uint32_t count, bool one_byte, StringSink* sink) {
  uint16_t buffer[1024];
  const uint32_t width = one_byte ? 1 : 2, most = static_cast<uint32_t>(sizeof buffer) / width;
  for (uint32_t done = 0; done < count;) {
    uint32_t now = count - done < most ? count - done : most;
    if (!ReadMemory(address + static_cast<uint64_t>(done) * width, buffer, static_cast<size_t>(now) * width))
      return false;
    if (!sink->Take({buffer, now, one_byte})) return false;
    done += now;
  }
  return true;
}

bool VisitSpan(const Span& span, StringSink* sink, int nesting);

bool VisitConsParts(const Span& span, StringSink* sink, int nesting) {
  uint64_t first = ReadField(span.string, Field::kStringFirstPart);
  int32_t first_length = StringLength(first);
  if (first_length < 0) return false;
  uint32_t split = static_cast<uint32_t>(first_length);
  if (span.skip < split) {
    uint32_t count = split - span.skip < span.count ? split - span.skip : span.count;
    if (!VisitSpan({first, span.skip, count}, sink, nesting + 1)) return false;
  }
  uint64_t end = static_cast<uint64_t>(span.skip) + span.count;
  if (end <= split) return true;
  uint32_t skip = span.skip > split ? span.skip - split : 0;
  uint32_t count = static_cast<uint32_t>(end) - split - skip;
  return VisitSpan({ReadField(span.string, Field::kStringSecondPart), skip, count}, sink, nesting + 1);
}

bool VisitSpan(const Span& span, StringSink* sink, int nesting) {
  int32_t type = InstanceType(span.string);
  if (nesting > kMostNesting || type < 0 || type >= kFirstNonString) return false;
  const bool one_byte = (type & kOneByte) != 0;
  const uint64_t start = static_cast<uint64_t>(span.skip) * (one_byte ? 1 : 2);
  uint64_t string = FollowForwarding(span.string);
  switch (type & kRepresentationMask) {
    case kSequential:
      return VisitCharacters(string - 1 + kSequentialData + start, span.count, one_byte, sink);
    case kExternal: {
      if ((type & kUncachedExternal) != 0) return false;
      uint64_t data = ReadField(string, kExternalData);
      return data != 0 && VisitCharacters(data + start, span.count, one_byte, sink);
    }
    case kThin:
      return VisitSpan({ReadField(string, Field::kStringFirstPart), span.skip, span.count}, sink, nesting + 1);
    case kSliced: {
      uint64_t offset = ReadField(string, Field::kStringSecondPart);
      if (!IsSmi(offset) || SmiValue(offset) < 0) return false;
      uint64_t parent = ReadField(string, Field::kStringFirstPart);
      return VisitSpan({parent, span.skip + static_cast<uint32_t>(SmiValue(offset)), span.count}, sink, nesting + 1);
    }
    case kCons:
      return VisitConsParts({string, span.skip, span.count}, sink, nesting);
    default:
      return false;
  }
}

class Comparer final : public StringSink {
 public:
  explicit Comparer(const char* text) : text_(text) {}
  bool Take(const StringPiece& piece) override {
    for (uint32_t i = 0; i < piece.count; ++i, ++text_) {
      if (*text_ == '\0' || static_cast<uint8_t>(*text_) != piece[i]) return false;
    }
    return true;
  }
  bool AtEnd() const { return *text_ == '\0'; }

 private:
  const char* text_;
};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

bool IsString(uint64_t object) {
  int32_t type = InstanceType(object);
  return type >= 0 && type < kFirstNonString;
}

int32_t StringLength(uint64_t string) {
  if (!IsString(string)) return -1;
  return ReadInt(FollowForwarding(string) - 1 + Get(Field::kStringLength));
}

bool VisitString(uint64_t string, StringSink* sink) {
  int32_t length = StringLength(string);
  return length >= 0 && VisitSpan({string, 0, static_cast<uint32_t>(length)}, sink, 0);
}

bool Utf8Writer::Put(uint32_t code_point) {
  char bytes[4];
  size_t count = 0;
  if (code_point < 0x80) {
    bytes[count++] = static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    bytes[count++] = static_cast<char>(0xc0 | code_point >> 6);
    bytes[count++] = static_cast<char>(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    bytes[count++] = static_cast<char>(0xe0 | code_point >> 12);
    bytes[count++] = static_cast<char>(0x80 | (code_point >> 6 & 0x3f));
    bytes[count++] = static_cast<char>(0x80 | (code_point & 0x3f));
  } else {
    bytes[count++] = static_cast<char>(0xf0 | code_point >> 18);
    bytes[count++] = static_cast<char>(0x80 | (code_point >> 12 & 0x3f));
    bytes[count++] = static_cast<char>(0x80 | (code_point >> 6 & 0x3f));
    bytes[count++] = static_cast<char>(0x80 | (code_point & 0x3f));
  }
  if (capacity_ - size_ < count) return false;
  memcpy(out_ + size_, bytes, count);
  size_ += count;
  return true;
}

bool Utf8Writer::Take(const StringPiece& piece) {
  constexpr uint32_t kReplacement = 0xfffd;
  for (uint32_t i = 0; i < piece.count; ++i) {
    uint16_t unit = piece[i];
    bool low = unit >= 0xdc00 && unit < 0xe000, high = unit >= 0xd800 && unit < 0xdc00;
    if (pending_ != 0) {
      uint32_t pair = 0x10000u + ((pending_ - 0xd800u) << 10) + (unit - 0xdc00u);
      if (!Put(low ? pair : kReplacement)) return false;
      pending_ = 0;
      if (low) continue;
    }
    if (high) {
      pending_ = unit;
    } else if (!Put(low ? kReplacement : unit)) {
      return false;
    }
  }
  return true;
}

size_t Utf8Writer::Finish() {
  if (pending_ != 0) Put(0xfffd);
  pending_ = 0;
  return size_;
}

size_t ReadString(uint64_t string, char* out, size_t capacity) {
  Utf8Writer writer(out, capacity);
  VisitString(string, &writer);
  return writer.Finish();
}

bool StringEquals(uint64_t string, const char* ascii) {
  Comparer comparer(ascii);
  return VisitString(string, &comparer) && comparer.AtEnd();
}

size_t UrlToPath(char* text, size_t length) {
  constexpr char kScheme[] = "file://";
  constexpr size_t kSchemeBytes = sizeof kScheme - 1;
  if (length <= kSchemeBytes || memcmp(text, kScheme, kSchemeBytes) != 0 || text[kSchemeBytes] != '/') return length;
  size_t size = 0;
  for (size_t i = kSchemeBytes; i < length; ++i) {
    // ?query and #fragment tell apart two imports of one file; the file is the part before. A literal ? is %3F.
    if (text[i] == '?' || text[i] == '#') break;
    int high = text[i] == '%' && i + 2 < length ? HexDigit(text[i + 1]) : -1;
    int low = high >= 0 ? HexDigit(text[i + 2]) : -1;
    if (low >= 0) i += 2;
    text[size++] = low >= 0 ? static_cast<char>(high << 4 | low) : text[i];
  }
  return size;
}

}  // namespace nodeleak::preload::v8
