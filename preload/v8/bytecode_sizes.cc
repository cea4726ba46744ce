#include "preload/v8/bytecode_sizes.h"

#include <dlfcn.h>
#include <string.h>

#include "preload/v8/heap_reader.h"
#include "preload/v8/layout.h"
#include "preload/v8/symbol_size.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr int kScales = 3;  // operands of 1, 2 and 4 bytes
constexpr int kMostBytecodes = 256;

// Bytecodes::kBytecodeSizes of the versions that do not export it, read from the official binaries: one letter per
// bytecode, 'a' + its size in bytes, for each operand scale.
struct KnownSizes {
  int32_t major, minor;
  const char* scales[kScales];
};
constexpr KnownSizes kKnownSizes[] = {
    {13,
     6,
     {"bbbbbcdeffgcbcbbbbbceeeccccdcccbbbcdddececceeeceeedeedfddeeefefddddddddddddddddddddddddccccbbcccceff"
      "efgfdefffgeeffdddddddddbcccbbfebcebedecddddbbbeccccccccccecccccccccccceecdfcbbbbcbbcefeebccbbbbbbbbb"
      "bbbbbbbb",
      "bbbbbdfhjhjdbdbbbbbdhhhddddfdddbbbcfffhdhddhhhdhhhehhfjffhhhihiffffffffffffffffffffffffddddbbddddhjj"
      "hjljfhjjhjggjjfffffffffbdddbbhgbdgbgfgdffffbbbhddddddddddhddddddddddddhhdfjdbbbbdbbdhjhhbddbbbbbbbbb"
      "bbbbbbbb",
      "bbbbbfjnrlpfbfbbbbbfnnnffffjfffbbbcjjjnfnffnnnfnnngnnjrjjnnnonojjjjjjjjjjjjjjjjjjjjjjjjffffbbffffnrr"
      "nrvrjnrrlpkkrrjjjjjjjjjbfffbblkbfkbkjkfjjjjbbbnffffffffffnffffffffffffnnfjrfbbbbfbbfnrnnbffbbbbbbbbb"
      "bbbbbbbb"}},
    {14,
     6,
     {"bbbbbcdeffgcbcbbbbbceeeccccdcccbbbcdddececceeeceeedeedfddeeefefdddddddddddddeddddddddddddccccbbcccce"
      "ffefgfdefffgeeffdeeeeeeddbcccbbfebcebedecdddddbbbeccccccccccecccccccccccceecdfcfbbbbcbbcefeebccbbbbb"
      "bbbbbbbbbbbb",
      "bbbbbdfhjhjdbdbbbbbdhhhddddfdddbbbcfffhdhddhhhdhhhehhfjffhhhihifffffffffffffgffffffffffffddddbbddddh"
      "jjhjljfhjjhjggjjfffffffffbdddbbhgbdgbgfgdfffffbbbhddddddddddhddddddddddddhhdfjdjbbbbdbbdhjhhbdcbbbbb"
      "bbbbbbbbbbbb",
      "bbbbbfjnrlpfbfbbbbbfnnnffffjfffbbbcjjjnfnffnnnfnnngnnjrjjnnnonojjjjjjjjjjjjjkjjjjjjjjjjjjffffbbffffn"
      "rrnrvrjnrrlpkkrrjhhhhhhjjbfffbblkbfkbkjkfjjjjjbbbnffffffffffnffffffffffffnnfjrfrbbbbfbbfnrnnbfcbbbbb"
      "bbbbbbbbbbbb"}},
};

uint8_t g_sizes[kScales][kMostBytecodes];
int g_count;

bool TakeExported() {
  constexpr char kName[] = "_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE";
  const void* address = dlsym(RTLD_DEFAULT, kName);
  if (address == nullptr) return false;
  int count = static_cast<int>(SymbolSize(kName, address) / kScales);
  if (count <= 0 || count > kMostBytecodes) return false;
  for (int scale = 0; scale < kScales; ++scale)
    memcpy(g_sizes[scale], static_cast<const uint8_t*>(address) + scale * count, static_cast<size_t>(count));
  g_count = count;
  return true;
}

}  // namespace

void FindBytecodeSizes() {
  if (TakeExported()) return;
  for (const KnownSizes& known : kKnownSizes) {
    if (known.major != g_layout.major || known.minor != g_layout.minor) continue;
    g_count = static_cast<int>(strlen(known.scales[0]));
    for (int scale = 0; scale < kScales; ++scale) {
      for (int i = 0; i < g_count; ++i) g_sizes[scale][i] = static_cast<uint8_t>(known.scales[scale][i] - 'a');
    }
  }
}

bool HasBytecodeSizes() { return g_count != 0; }

int32_t FindBytecodeOffset(uint64_t bytecode_array, int32_t index) {
  uint64_t length = ReadField(bytecode_array, kArrayLength);
  if (g_count == 0 || !IsSmi(length) || SmiValue(length) <= 0) return -1;
  const uint64_t bytes = static_cast<uint64_t>(SmiValue(length));
  ByteStream stream(bytecode_array - 1 + static_cast<uint64_t>(Get(Field::kBytecodeFirst)), bytes);
  uint64_t offset = 0;
  for (int32_t i = 0; i < index; ++i) {
    // Wide 0, ExtraWide 1, DebugBreakWide 2, DebugBreakExtraWide 3 scale the operands of the bytecode behind them.
    uint8_t code, ignored;
    if (!stream.Next(&code)) return -1;
    int scale = 0;
    uint32_t prefix = 0;
    if (code <= 3) {
      scale = (code & 1) == 0 ? 1 : 2;
      prefix = 1;
      if (!stream.Next(&code)) return -1;
    }
    uint32_t size = code < g_count ? g_sizes[scale][code] : 0;
    if (size == 0) return -1;
    for (uint32_t rest = 1; rest < size; ++rest) {
      if (!stream.Next(&ignored)) return -1;
    }
    offset += prefix + size;
  }
  return offset < bytes ? static_cast<int32_t>(offset) : -1;
}

}  // namespace nodeleak::preload::v8
