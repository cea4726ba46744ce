#include "preload/unwind/call_frames.h"

#include <string.h>

#include "preload/unwind/table_pages.h"

namespace nodeleak::preload {
namespace {

// DWARF numbers of x86-64 (psABI, figure 3.36).
constexpr uint64_t kRbp = 6, kRsp = 7, kReturnAddress = 16;
constexpr uint8_t kRelative4 = 0x1b;  // DW_EH_PE_pcrel | DW_EH_PE_sdata4, as gcc and clang write pointers to code

template <typename T>
T Read(uint64_t address) {
  T value;
  memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

// An address that is `offset` away from `base`.
uint64_t At(uint64_t base, int32_t offset) { return base + static_cast<uint64_t>(static_cast<int64_t>(offset)); }

// Bytes of a table, read in order. After the end everything is 0 and `failed`.
class Bytes {
 public:
  Bytes(uint64_t start, uint64_t end) : at_(start), end_(end) {}
  bool More() const { return at_ < end_ && !failed_; }
  bool failed() const { return failed_; }
  uint64_t at() const { return at_; }
  uint64_t end() const { return end_; }
  void Fail() { failed_ = true; }

  template <typename T>
  T Take() {
    if (failed_ || end_ - at_ < sizeof(T)) return Fail(), T{};
    at_ += sizeof(T);
    return Read<T>(at_ - sizeof(T));
  }
  void Skip(uint64_t bytes) {
    if (failed_ || end_ - at_ < bytes) return Fail();
    at_ += bytes;
  }
  uint64_t TakeUnsigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Take<uint8_t>();
      value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return Fail(), 0;
  }
  int64_t TakeSigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64;) {
      const uint8_t byte = Take<uint8_t>();
      value |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) != 0) continue;
      if ((byte & 0x40) != 0 && shift < 64) value |= ~uint64_t{0} << shift;
      return static_cast<int64_t>(value);
    }
    return Fail(), 0;
  }

 private:
  uint64_t at_, end_;
  bool failed_ = false;
};

// An entry of .eh_frame without its length; nothing when it does not lie in the module.
Bytes EntryAt(const ModuleInfo& module, uint64_t address) {
  constexpr uint32_t kMostBytes = 1 << 24;
  if (address < module.start || address + sizeof(uint32_t) > module.end) return {0, 0};
  const auto length = Read<uint32_t>(address);
  const uint64_t start = address + sizeof length;
  if (length > kMostBytes || length > module.end - start) return {0, 0};  // 0xffffffff: 64-bit form
  return {start, start + length};
}

struct Function {
  uint64_t start;  // 0: none
  uint64_t common_entry;
  Bytes rest;  // of its entry, after the range
};

// What the tables have on the function that contains pc.
Function FindFunction(const ModuleInfo& module, uint64_t pc) {
  const Function kNone = {0, 0, {0, 0}};
  struct TableEntry {
    int32_t start, entry;  // both relative to .eh_frame_hdr
  };
  uint64_t low = 0, high = module.unwind_table_bytes / sizeof(TableEntry);
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    if (At(module.eh_frame_hdr, Read<TableEntry>(module.unwind_table + middle * sizeof(TableEntry)).start) <= pc) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return kNone;
  const auto found = Read<TableEntry>(module.unwind_table + (low - 1) * sizeof(TableEntry));
  const uint64_t start = At(module.eh_frame_hdr, found.start);
  Bytes entry = EntryAt(module, At(module.eh_frame_hdr, found.entry));
  const uint64_t common_field = entry.at();
  NoteTableUse(module, common_field, entry.end());
  const auto common_distance = entry.Take<uint32_t>();
  const uint64_t start_field = entry.at();
  const uint64_t said = At(start_field, entry.Take<int32_t>());
  const auto range = entry.Take<uint32_t>();
  if (entry.failed() || said != start || pc - start >= range) return kNone;
  return {start, common_field - common_distance, entry};
}

// Where a register of the caller is.
struct Place {
  enum Kind : uint8_t { kUnchanged, kAtOffset, kUndefined, kOther } kind = kUnchanged;
  int64_t offset = 0;  // from the CFA
};
struct Row {
  uint64_t cfa_register = UINT64_MAX;  // or an expression
  int64_t cfa_offset = 0;
  Place rbp, return_address;
  Place* Of(uint64_t number) { return number == kRbp ? &rbp : number == kReturnAddress ? &return_address : nullptr; }
};

struct CommonEntry {
  uint64_t code_alignment = 0;
  int64_t data_alignment = 0;
  Bytes instructions{0, 0};
};

// False: not of the usual form.
bool ReadCommonEntry(const ModuleInfo& module, uint64_t address, CommonEntry* common) {
  Bytes entry = EntryAt(module, address);
  const auto id = entry.Take<uint32_t>();
  const auto version = entry.Take<uint8_t>();
  if (entry.failed() || id != 0 || (version != 1 && version != 3)) return false;
  char augmentation[8];
  size_t letters = 0;
  while ((augmentation[letters] = static_cast<char>(entry.Take<uint8_t>())) != '\0')
    if (++letters == sizeof augmentation) return false;
  common->code_alignment = entry.TakeUnsigned();
  common->data_alignment = entry.TakeSigned();
  const uint64_t return_register = version == 1 ? entry.Take<uint8_t>() : entry.TakeUnsigned();
  if (return_register != kReturnAddress || augmentation[0] != 'z') return false;
  const uint64_t data_bytes = entry.TakeUnsigned();
  Bytes data = entry;
  entry.Skip(data_bytes);
  bool relative = false;
  for (size_t i = 1; i < letters; ++i) {
    if (augmentation[i] == 'R') {
      relative = data.Take<uint8_t>() == kRelative4;
    } else if (augmentation[i] == 'L') {
      data.Skip(1);
    } else if (augmentation[i] == 'P') {  // the personality routine, by DW_EH_PE format
      constexpr uint8_t kSizes[16] = {8, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8, 0, 0, 0};
      const uint8_t size = kSizes[data.Take<uint8_t>() & 0x0f];
      if (size == 0) return false;
      data.Skip(size);
    } else {
      return false;  // S: a signal's frame
    }
  }
  common->instructions = entry;
  return relative && !entry.failed() && !data.failed();
}

// Runs the instructions of one entry up to pc.
class Interpreter {
 public:
  Interpreter(const CommonEntry& common, uint64_t start, uint64_t pc) : common_(common), location_(start), pc_(pc) {}

  Row row;

  // False: an instruction, or a use of one, that is not of the ordinary forms.
  bool Run(Bytes instructions) {
    while (instructions.More() && location_ <= pc_)
      if (!Step(&instructions)) return false;
    return !instructions.failed();
  }
  void KeepAsInitial() { initial_ = row; }

 private:
  enum Instruction : uint8_t {
    kNop = 0x00,
    kAdvance1 = 0x02,
    kAdvance2 = 0x03,
    kAdvance4 = 0x04,
    kOffsetExtended = 0x05,
    kRestoreExtended = 0x06,
    kUndefined = 0x07,
    kSameValue = 0x08,
    kRegister = 0x09,
    kRemember = 0x0a,
    kRestoreState = 0x0b,
    kDefineCfa = 0x0c,
    kDefineCfaRegister = 0x0d,
    kDefineCfaOffset = 0x0e,
    kDefineCfaExpression = 0x0f,
    kExpression = 0x10,
    kOffsetExtendedSigned = 0x11,
    kDefineCfaSigned = 0x12,
    kDefineCfaOffsetSigned = 0x13,
    kValueOffset = 0x14,
    kValueOffsetSigned = 0x15,
    kValueExpression = 0x16,
    kGnuArgumentsSize = 0x2e,
    kAdvance = 0x40,  // these three with an operand in the lower six bits
    kOffset = 0x80,
    kRestore = 0xc0,
  };

  // A row applies from its location on.
  bool Advance(uint64_t by) {
    location_ += by * common_.code_alignment;
    return true;
  }
  bool Set(uint64_t number, Place place) {
    if (Place* known = row.Of(number)) *known = place;
    return true;
  }
  bool SetOffset(uint64_t number, int64_t factored) {
    return Set(number, {Place::kAtOffset, factored * common_.data_alignment});
  }
  bool Restore(uint64_t number) {
    const Place* initial = initial_.Of(number);
    return initial == nullptr || Set(number, *initial);
  }
  bool DefineCfa(uint64_t number, int64_t offset) {
    row.cfa_register = number;
    row.cfa_offset = offset;
    return true;
  }

  bool Step(Bytes* in) {
    const auto byte = in->Take<uint8_t>();
    const uint8_t operand = byte & 0x3f;
    switch (byte & 0xc0) {
      case kAdvance:
        return Advance(operand);
      case kOffset:
        return SetOffset(operand, static_cast<int64_t>(in->TakeUnsigned()));
      case kRestore:
        return Restore(operand);
      default:
        return StepExtended(byte, in);
    }
  }

  bool StepExtended(uint8_t instruction, Bytes* in) {
    switch (instruction) {
      case kNop:
        return true;
      case kAdvance1:
        return Advance(in->Take<uint8_t>());
      case kAdvance2:
        return Advance(in->Take<uint16_t>());
      case kAdvance4:
        return Advance(in->Take<uint32_t>());
      case kRemember:
        if (depth_ == kDeepest) return false;
        remembered_[depth_++] = row;
        return true;
      case kRestoreState:
        if (depth_ == 0) return false;
        row = remembered_[--depth_];
        return true;
      case kGnuArgumentsSize:
        in->TakeUnsigned();
        return true;
      case kDefineCfaExpression:
        row.cfa_register = UINT64_MAX;
        in->Skip(in->TakeUnsigned());
        return true;
      default:
        return StepWithRegister(instruction, in);
    }
  }

  bool StepWithRegister(uint8_t instruction, Bytes* in) {
    if (instruction == kDefineCfaOffset) return DefineCfa(row.cfa_register, static_cast<int64_t>(in->TakeUnsigned()));
    if (instruction == kDefineCfaOffsetSigned)
      return DefineCfa(row.cfa_register, in->TakeSigned() * common_.data_alignment);
    if (instruction < kOffsetExtended || instruction > kValueExpression) return false;
    const uint64_t number = in->TakeUnsigned();
    switch (instruction) {
      case kOffsetExtended:
        return SetOffset(number, static_cast<int64_t>(in->TakeUnsigned()));
      case kOffsetExtendedSigned:
        return SetOffset(number, in->TakeSigned());
      case kRestoreExtended:
        return Restore(number);
      case kUndefined:
        return Set(number, {Place::kUndefined, 0});
      case kSameValue:
        return Set(number, {Place::kUnchanged, 0});
      case kDefineCfa:
        return DefineCfa(number, static_cast<int64_t>(in->TakeUnsigned()));
      case kDefineCfaSigned:
        return DefineCfa(number, in->TakeSigned() * common_.data_alignment);
      case kDefineCfaRegister:
        return DefineCfa(number, row.cfa_offset);
      case kRegister:
      case kValueOffset:
      case kValueOffsetSigned:
        in->TakeUnsigned();
        return Set(number, {Place::kOther, 0});
      case kExpression:
      case kValueExpression:
        in->Skip(in->TakeUnsigned());
        return Set(number, {Place::kOther, 0});
      default:
        return false;
    }
  }

  static constexpr int kDeepest = 8;
  const CommonEntry& common_;
  uint64_t location_, pc_;
  Row initial_;
  Row remembered_[kDeepest];
  int depth_ = 0;
};

UnwindRule RuleOf(const Row& row) {
  constexpr int64_t kBelowCfa = -8;
  if (row.return_address.kind == Place::kUndefined) return UnwindRule::Of(RuleKind::kEnd);
  if (row.cfa_register != kRsp && row.cfa_register != kRbp) return UnwindRule();
  if (row.return_address.kind != Place::kAtOffset || row.return_address.offset != kBelowCfa) return UnwindRule();
  if (row.rbp.kind != Place::kAtOffset && row.rbp.kind != Place::kUnchanged) return UnwindRule();
  UnwindRule rule;
  return UnwindRule::Encode(row.cfa_register == kRbp, row.cfa_offset, row.rbp.offset, &rule) ? rule : UnwindRule();
}

}  // namespace

UnwindRule RuleFromTables(const ModuleInfo& module, uint64_t return_address) {
  if (module.unwind_table == 0) return UnwindRule();
  const uint64_t pc = return_address - 1;  // the call
  Function function = FindFunction(module, pc);
  if (function.start == 0) {
    // The first byte of a function that no call can lie before: makecontext() put it on a new stack.
    const bool planted = FindFunction(module, return_address).start == return_address;
    return UnwindRule::Of(planted ? RuleKind::kEnd : RuleKind::kFramePointer);
  }
  CommonEntry common;
  if (!ReadCommonEntry(module, function.common_entry, &common)) return UnwindRule();
  function.rest.Skip(function.rest.TakeUnsigned());
  Interpreter interpreter(common, function.start, pc);
  if (!interpreter.Run(common.instructions)) return UnwindRule();
  interpreter.KeepAsInitial();
  return interpreter.Run(function.rest) ? RuleOf(interpreter.row) : UnwindRule();
}

}  // namespace nodeleak::preload
