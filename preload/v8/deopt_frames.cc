#include "preload/v8/deopt_frames.h"

#include <string.h>

#include "preload/v8/heap_reader.h"
#include "preload/v8/source_positions.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint32_t kLargestMetadata = 4u << 20;

// Opcodes of a frame translation that matter here, and the number of operands of each (one digit an opcode, read from
// the official binaries). Operands are variable-length numbers with the sign in the lowest bit.
// https://github.com/v8/v8/blob/12.4.254/src/deoptimizer/translation-opcode.h
struct TranslationFormat {
  int32_t major, minor;
  int opcode_shift;  // V8 10 keeps the opcode byte as a signed number
  int first_interpreted, last_interpreted;
  int first_continuation, last_continuation;  // of JavaScript builtins
  int first_begin, last_begin;
  int match_previous;  // "the next n operations are those of the previous translation"; -1: has none
  const char* operands;
};
constexpr TranslationFormat kFormats[] = {
    {10, 2, 1, 18, 18, 19, 20, 3, 3, -1, "2103113131111111115334111112"},
    {11, 3, 0, 23, 24, 25, 26, 2, 3, 35, "103311313111112111111115333401111121"},
    {12, 4, 0, 0, 1, 2, 3, 12, 13, 39, "5333213432103311111111111111111101111121"},
    {13, 6, 0, 0, 1, 2, 3, 14, 15, 44, "643321343331003311101111111111111111101111121"},
    {14, 6, 0, 0, 1, 2, 3, 14, 15, 44, "643321343331003311101111111111111111101111121"},
};

const TranslationFormat* FindFormat() {
  for (const TranslationFormat& format : kFormats) {
    if (format.major == g_layout.major && format.minor == g_layout.minor) return &format;
  }
  return nullptr;
}

bool Between(int value, int first, int last) { return value >= first && value <= last; }

bool ReadOperand(ByteStream* stream, int32_t* value) {
  uint64_t bits;
  if (!ReadUnsigned(stream, &bits)) return false;
  *value = (bits & 1) != 0 ? -static_cast<int32_t>(bits >> 1) : static_cast<int32_t>(bits >> 1);
  return true;
}

// One operation with its first two operands.
struct Operation {
  int opcode;
  int32_t operands[2];
};

class TranslationReader {
 public:
  TranslationReader(const TranslationFormat& format, uint64_t address, uint64_t bytes)
      : format_(format), stream_(address, bytes), opcode_count_(static_cast<int>(strlen(format.operands))) {}
  bool ReadOpcode(int* opcode) {
    uint8_t byte;
    if (!stream_.Next(&byte)) return false;
    *opcode = byte >> format_.opcode_shift;
    return true;
  }
  bool ReadOperands(Operation* operation) {
    if (operation->opcode >= opcode_count_) return false;
    int count = format_.operands[operation->opcode] - '0';
    for (int i = 0; i < count; ++i) {
      int32_t value;
      if (!ReadOperand(&stream_, &value)) return false;
      if (i < 2) operation->operands[i] = value;
    }
    return true;
  }
  bool Read(Operation* operation) { return ReadOpcode(&operation->opcode) && ReadOperands(operation); }
  ByteStream* stream() { return &stream_; }
  int opcode_count() const { return opcode_count_; }

 private:
  const TranslationFormat& format_;
  ByteStream stream_;
  int opcode_count_;
};

struct Translation {
  const TranslationFormat* format;
  uint64_t address, bytes;
  uint64_t start;  // of this translation
};

// BEGIN: how far back the translation lies that this one leans on (0: none), frames, JavaScript frames.
bool ReadBegin(const Translation& translation, TranslationReader* reader, uint64_t* look_back, int32_t* js_frames) {
  int opcode;
  int32_t frames, updates;
  *look_back = 0;
  const TranslationFormat& format = *translation.format;
  if (!reader->ReadOpcode(&opcode) || !Between(opcode, format.first_begin, format.last_begin)) return false;
  bool leans = format.match_previous >= 0;
  if (leans && !ReadUnsigned(reader->stream(), look_back)) return false;
  if (!ReadOperand(reader->stream(), &frames) || !ReadOperand(reader->stream(), js_frames)) return false;
  if (!leans && !ReadOperand(reader->stream(), &updates)) return false;
  constexpr int32_t kMostFrames = 64;
  return frames > 0 && frames <= kMostFrames && *js_frames <= frames && *look_back <= translation.start;
}

// The operations of a translation, those that it borrows from a previous one included.
class OperationSequence {
 public:
  OperationSequence(const Translation& translation, uint64_t look_back, const TranslationReader& reader)
      : format_(*translation.format),
        reader_(reader),
        previous_(format_, translation.address + translation.start - look_back,
                  translation.bytes - translation.start + look_back),
        leans_(look_back != 0) {}
  bool Start() {
    Operation begin = {};
    return !leans_ || previous_.Read(&begin);
  }
  bool Next(Operation* operation) {
    *operation = {};
    while (borrowed_ == 0) {
      if (!reader_.ReadOpcode(&operation->opcode)) return false;
      if (operation->opcode >= reader_.opcode_count()) {  // a short form of "match"
        borrowed_ = static_cast<uint64_t>(operation->opcode - reader_.opcode_count());
      } else if (operation->opcode == format_.match_previous) {
        if (!ReadUnsigned(reader_.stream(), &borrowed_)) return false;
      } else {
        // The previous translation may be shorter: what is read behind its end is not borrowed.
        Operation replaced = {};
        if (leans_) previous_.Read(&replaced);
        return reader_.ReadOperands(operation);
      }
    }
    --borrowed_;
    return leans_ && previous_.Read(operation);
  }

 private:
  const TranslationFormat& format_;
  TranslationReader reader_, previous_;
  bool leans_;
  uint64_t borrowed_ = 0;
};

int ReadFrames(const Translation& translation, UnoptimizedFrame* frames, int capacity) {
  const TranslationFormat& format = *translation.format;
  TranslationReader reader(format, translation.address + translation.start, translation.bytes - translation.start);
  uint64_t look_back;
  int32_t js_frames;
  if (!ReadBegin(translation, &reader, &look_back, &js_frames)) return 0;
  OperationSequence operations(translation, look_back, reader);
  if (!operations.Start()) return 0;
  int count = 0;
  Operation operation;
  while (count < js_frames && count < capacity) {
    if (!operations.Next(&operation) || Between(operation.opcode, format.first_begin, format.last_begin)) return 0;
    bool continuation = Between(operation.opcode, format.first_continuation, format.last_continuation);
    if (!continuation && !Between(operation.opcode, format.first_interpreted, format.last_interpreted)) continue;
    frames[count] = {operation.operands[0], operation.operands[1], continuation, -1};
    if (operations.Next(&operation)) frames[count].closure = operation.operands[0];
    ++count;
  }
  return count;
}

}  // namespace

// The safepoint table behind the instructions: a header (length and configuration), then entries
//   pc | deopt index, trampoline pc (when the configuration has deopt data) | registers
// Configuration bits: deopt data 0, bytes of registers 1-3, of pc 4-6, of the deopt index 7-9. Maglev has one more
// header word and a byte more per entry. https://github.com/v8/v8/blob/13.6.233/src/codegen/safepoint-table.h
bool FindSafepoint(const CodeObject& code, uint32_t pc_offset, SafepointEntry* entry) {
  uint32_t metadata = static_cast<uint32_t>(ReadInt(code.code - 1 + Get(Field::kCodeMetadataSize)));
  if (!Has(Field::kSafepointHeaderBytes) || metadata < 8 || metadata > kLargestMetadata) return false;
  const bool maglev = code.tier == CodeTier::kMaglev;
  const uint64_t table = code.start + code.size;
  const int32_t length = ReadInt(table + static_cast<uint64_t>(Get(Field::kSafepointLengthOffset)));
  uint32_t configuration =
      static_cast<uint32_t>(ReadInt(table + static_cast<uint64_t>(Get(Field::kSafepointLengthOffset)) + 4));
  const uint64_t header = maglev ? 16 : static_cast<uint64_t>(Get(Field::kSafepointHeaderBytes));
  const uint32_t registers = configuration >> 1 & 7;
  const uint32_t pc_bytes = configuration >> 4 & 7, index_bytes = configuration >> 7 & 7;
  if ((configuration & 1) == 0 || length <= 0 || pc_bytes == 0 || pc_bytes > 4 || index_bytes > 4) return false;
  const uint32_t entry_bytes = 2 * pc_bytes + index_bytes + registers + (maglev ? 1 : 0);
  const uint64_t bytes = static_cast<uint64_t>(entry_bytes) * static_cast<uint32_t>(length);
  if (header + bytes > metadata + 8u) return false;
  ByteStream stream(table + header, bytes);
  for (int32_t i = 0; i < length; ++i) {
    uint32_t pc = 0, index = 0, trampoline = 0;
    for (uint32_t at = 0; at < entry_bytes; ++at) {
      uint8_t value;
      if (!stream.Next(&value)) return false;
      if (at < pc_bytes) {
        pc |= static_cast<uint32_t>(value) << (8 * at);
      } else if (at < pc_bytes + index_bytes) {
        index |= static_cast<uint32_t>(value) << (8 * (at - pc_bytes));
      } else if (at < 2 * pc_bytes + index_bytes) {
        trampoline |= static_cast<uint32_t>(value) << (8 * (at - pc_bytes - index_bytes));
      }
    }
    // Index and trampoline are stored plus one: 0 is none.
    if (pc != pc_offset && trampoline != pc_offset + 1) continue;
    *entry = {pc, static_cast<int32_t>(index) - 1};
    return true;
  }
  return false;
}

int ReadDeoptFrames(const CodeObject& code, int32_t deopt_index, UnoptimizedFrame* frames, int capacity) {
  Translation translation = {FindFormat(), 0, 0, 0};
  if (translation.format == nullptr || deopt_index < 0 || !Has(Field::kDeoptFirstEntry)) return 0;
  uint64_t deopt = FollowForwarding(ReadField(code.code, Field::kCodeDeoptData));
  if (!IsHeapObject(deopt)) return 0;
  // An entry: bytecode offset, index of the translation, pc.
  uint64_t start = ReadElement(deopt, Get(Field::kDeoptFirstEntry) + 3 * deopt_index + 1);
  uint64_t length = ReadField(deopt, kArrayLength);
  if (!IsSmi(length) || Get(Field::kDeoptFirstEntry) + 3 * deopt_index + 3 > SmiValue(length)) return 0;
  if (!FindBytes(ReadElement(deopt, Get(Field::kDeoptTranslations)), &translation.address, &translation.bytes))
    return 0;
  if (!IsSmi(start) || SmiValue(start) < 0) return 0;
  translation.start = static_cast<uint64_t>(SmiValue(start));
  return translation.start < translation.bytes ? ReadFrames(translation, frames, capacity) : 0;
}

}  // namespace nodeleak::preload::v8
