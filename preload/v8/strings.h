// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// V8 strings (sequential, external, cons, sliced, thin; one and two bytes a character) read piece by piece, and turned
// into UTF-8.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nodeleak::preload::v8 {

// Takes the characters in order. False: enough.
struct StringPiece {
  const void* characters;
  uint32_t count;
  bool one_byte;
  uint16_t operator[](uint32_t i) const {
    return one_byte ? static_cast<const uint8_t*>(characters)[i] : static_cast<const uint16_t*>(characters)[i];
  }
};
class StringSink {
 public:
  // Not pure: that would need libstdc++.
  virtual bool Take(const StringPiece&) { return false; }

 protected:
  ~StringSink() = default;
};

bool IsString(uint64_t object);
int32_t StringLength(uint64_t string);

// False: not a string, unreadable, or cut by the sink.
bool VisitString(uint64_t string, StringSink* sink);

// UTF-8 into a buffer that must not overflow; unpaired surrogates become U+FFFD.
class Utf8Writer final : public StringSink {
 public:
  Utf8Writer(char* out, size_t capacity) : out_(out), capacity_(capacity) {}
  bool Take(const StringPiece& piece) override;
  // To be called once after the last piece. The number of bytes written.
  size_t Finish();

 private:
  bool Put(uint32_t code_point);
  char* out_;
  size_t capacity_;
  size_t size_ = 0;
  uint16_t pending_ = 0;  // a high surrogate that waits for its partner
};

// At most `capacity` bytes; 0 when `string` is none or empty.
size_t ReadString(uint64_t string, char* out, size_t capacity);
bool StringEquals(uint64_t string, const char* ascii);

// "file:///a%20b" in place as "/a b"; others are left alone. The new length.
size_t UrlToPath(char* text, size_t length);

}  // namespace nodeleak::preload::v8
