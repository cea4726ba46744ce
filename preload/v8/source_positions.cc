#include "preload/v8/source_positions.h"

namespace nodeleak::preload::v8 {

bool ReadUnsigned(ByteStream* stream, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    uint8_t byte;
    if (!stream->Next(&byte)) return false;
    *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

bool ReadSigned(ByteStream* stream, int64_t* value) {
  uint64_t bits;
  if (!ReadUnsigned(stream, &bits)) return false;
  *value = static_cast<int64_t>(bits >> 1) ^ -static_cast<int64_t>(bits & 1);
  return true;
}

static bool ReadOffsetDelta(ByteStream* stream, PositionEncoding encoding, int64_t* delta) {
  if (encoding == PositionEncoding::kFlagBits) {
    uint64_t bits;
    if (!ReadUnsigned(stream, &bits)) return false;
    *delta = static_cast<int64_t>(bits >> 2);
    return true;
  }
  if (!ReadSigned(stream, delta)) return false;
  if (*delta < 0) *delta = -(*delta + 1);
  return true;
}

bool FindPosition(ByteStream table, PositionEncoding encoding, int64_t code_offset, SourcePosition* position) {
  int64_t offset = -1, raw = 0;  // V8 starts counting one before the first instruction
  bool found = false;
  int64_t offset_delta, position_delta;
  while (ReadOffsetDelta(&table, encoding, &offset_delta) && ReadSigned(&table, &position_delta)) {
    offset += offset_delta;
    raw += position_delta;
    if (offset > code_offset) break;
    position->raw = static_cast<uint64_t>(raw);
    found = true;
  }
  return found;
}

bool FindPositionInTable(uint64_t array, int64_t code_offset, SourcePosition* position) {
  uint64_t address, bytes;
  if (!FindBytes(array, &address, &bytes)) return false;
  auto encoding = static_cast<PositionEncoding>(Get(Field::kPositionTableEncoding));
  return FindPosition(ByteStream(address, bytes), encoding, code_offset, position);
}

int32_t FindBaselineBytecodeIndex(ByteStream table, uint64_t pc_offset) {
  uint64_t delta, end;
  if (!ReadUnsigned(&table, &end)) return kUnknownBytecode;  // the prologue
  int32_t index = kPrologue;
  while (end < pc_offset && ReadUnsigned(&table, &delta)) {
    end += delta;
    ++index;
  }
  return index;
}

}  // namespace nodeleak::preload::v8
