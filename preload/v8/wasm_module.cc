#include "preload/v8/wasm_module.h"

#include <string.h>

#include "preload/v8/heap_reader.h"
#include "preload/v8/source_positions.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint8_t kHead[] = {0, 'a', 's', 'm', 1, 0, 0, 0};
constexpr uint64_t kMostModuleBytes = 1ull << 31;

// Reads on from a place in a module; counts along.
class ModuleReader {
 public:
  ModuleReader(uint64_t address, uint64_t bytes) : at_(address), end_(address + bytes), stream_(address, bytes) {}
  uint64_t at() const { return at_; }
  uint64_t left() const { return end_ - at_; }
  bool Byte(uint8_t* byte) {
    if (!stream_.Next(byte)) return false;
    ++at_;
    return true;
  }
  bool Number(uint64_t* value) {  // LEB128
    *value = 0;
    for (int shift = 0; shift < 35; shift += 7) {
      uint8_t byte;
      if (!Byte(&byte)) return false;
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }
  bool SkipNumber() {
    uint64_t value;
    return Number(&value);
  }
  bool SkipBlock() {
    uint64_t bytes;
    return Number(&bytes) && Skip(bytes);
  }
  bool Skip(uint64_t bytes) {
    if (bytes > left()) return false;
    at_ += bytes;
    stream_ = ByteStream(at_, left());
    return true;
  }

 private:
  uint64_t at_, end_;
  ByteStream stream_;
};

// A length, then so many bytes.
bool ReadBlock(ModuleReader* reader, ModuleReader* block) {
  uint64_t bytes;
  if (!reader->Number(&bytes) || bytes > reader->left()) return false;
  *block = ModuleReader(reader->at(), bytes);
  return reader->Skip(bytes);
}

bool IsNameSection(ModuleReader* section) {
  constexpr char kName[] = "name";
  uint64_t length;
  if (!section->Number(&length) || length != sizeof kName - 1) return false;
  for (uint64_t i = 0; i < length; ++i) {
    uint8_t byte;
    if (!section->Byte(&byte) || byte != static_cast<uint8_t>(kName[i])) return false;
  }
  return true;
}

// Pairs of index and name, in the order of the index.
bool FindInFunctionNames(ModuleReader names, int32_t function_index, WasmName* name) {
  uint64_t count, index, bytes;
  if (!names.Number(&count)) return false;
  for (uint64_t i = 0; i < count; ++i) {
    if (!names.Number(&index) || index > static_cast<uint64_t>(function_index) || !names.Number(&bytes)) return false;
    if (index == static_cast<uint64_t>(function_index)) {
      *name = {names.at(), static_cast<uint32_t>(bytes)};
      return bytes > 0 && bytes <= names.left();
    }
    if (!names.Skip(bytes)) return false;
  }
  return false;
}

bool LooksLikeModule(const WasmBytes& module) {
  uint8_t head[sizeof kHead];
  return (module.address >> 47) == 0 && module.address > 0x10000 && module.bytes >= sizeof kHead &&
         module.bytes <= kMostModuleBytes && ReadMemory(module.address, head, sizeof head) &&
         memcmp(head, kHead, sizeof head) == 0;
}

// The sections of a module.
ModuleReader Sections(const WasmBytes& module) {
  return ModuleReader(module.address + sizeof kHead, module.bytes - sizeof kHead);
}

bool SkipLimits(ModuleReader* reader) {
  constexpr uint8_t kHasMaximum = 1;
  uint8_t flags;
  return reader->Byte(&flags) && reader->SkipNumber() && ((flags & kHasMaximum) == 0 || reader->SkipNumber());
}

// A value type is one byte, or for references to a type that byte and the type.
bool SkipValueType(ModuleReader* reader) {
  constexpr uint8_t kReference = 0x64, kNullableReference = 0x63;
  uint8_t type;
  return reader->Byte(&type) && ((type != kReference && type != kNullableReference) || reader->SkipNumber());
}

// One import; counts those of functions.
bool SkipImport(ModuleReader* reader, uint64_t* functions) {
  enum : uint8_t { kFunction, kTable, kMemory, kGlobal, kTag };
  uint8_t kind, flag;
  if (!reader->SkipBlock() || !reader->SkipBlock() || !reader->Byte(&kind)) return false;  // module and name
  switch (kind) {
    case kFunction:
      ++*functions;
      return reader->SkipNumber();
    case kTable:
      return SkipValueType(reader) && SkipLimits(reader);
    case kMemory:
      return SkipLimits(reader);
    case kGlobal:
      return SkipValueType(reader) && reader->Byte(&flag);
    case kTag:
      return reader->Byte(&flag) && reader->SkipNumber();
    default:
      return false;
  }
}

bool CountImportedFunctions(ModuleReader imports, uint64_t* functions) {
  uint64_t count;
  if (!imports.Number(&count)) return false;
  for (uint64_t i = 0; i < count; ++i) {
    if (!SkipImport(&imports, functions)) return false;
  }
  return true;
}

}  // namespace

bool FindWasmName(const WasmBytes& module, int32_t function_index, WasmName* name) {
  constexpr uint8_t kCustomSection = 0, kFunctionNames = 1;
  if (function_index < 0 || !LooksLikeModule(module)) return false;
  ModuleReader reader = Sections(module), section(0, 0), part(0, 0);
  uint8_t id;
  while (reader.Byte(&id) && ReadBlock(&reader, &section)) {
    if (id != kCustomSection || !IsNameSection(&section)) continue;
    while (section.Byte(&id) && ReadBlock(&section, &part)) {
      if (id == kFunctionNames) return FindInFunctionNames(part, function_index, name);
    }
    return false;
  }
  return false;
}

bool FindWasmBody(const WasmBytes& module, int32_t function_index, uint64_t* offset) {
  constexpr uint8_t kImports = 2, kCode = 10;
  if (function_index < 0 || !LooksLikeModule(module)) return false;
  ModuleReader reader = Sections(module), section(0, 0);
  uint64_t before = 0, bodies, bytes;
  const auto wanted = static_cast<uint64_t>(function_index);
  uint8_t id;
  while (reader.Byte(&id) && ReadBlock(&reader, &section)) {
    if (id == kImports && !CountImportedFunctions(section, &before)) return false;
    if (id != kCode) continue;
    if (!section.Number(&bodies) || wanted < before || wanted - before >= bodies) return false;
    for (uint64_t i = before; i < wanted; ++i) {
      if (!section.SkipBlock()) return false;
    }
    if (!section.Number(&bytes) || bytes > section.left()) return false;
    *offset = section.at() - module.address;
    return true;
  }
  return false;
}

// NativeModule::wire_bytes_ is a shared_ptr<OwnedVector<const uint8_t>>. Its place differs per version; what it leads
// to, an address and a length, begins like a module.
bool FindWasmBytes(uint64_t native_module, WasmBytes* module) {
  constexpr uint64_t kMostBytes = 1200;
  uint64_t words[kMostBytes / 8];
  if (!ReadMemory(native_module, words, sizeof words)) return false;
  for (uint64_t word : words) {
    if ((word & 7) != 0 || word >> 47 != 0 || word < 0x10000 || !ReadMemory(word, module, sizeof *module)) continue;
    if (LooksLikeModule(*module)) return true;
  }
  return false;
}

}  // namespace nodeleak::preload::v8
