#include "tracer/relocate_prologue.h"

#include <capstone/capstone.h>
#include <string.h>

#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nodeleak::tracer {
namespace {

constexpr uint8_t kJumpNear = 0xe9;

std::optional<int32_t> Distance(uint64_t target, uint64_t next_instruction) {
  const auto distance = static_cast<int64_t>(target - next_instruction);
  if (distance != static_cast<int32_t>(distance)) return std::nullopt;
  return static_cast<int32_t>(distance);
}

// Capstone's handle and the instructions of one function.
class Disassembly {
 public:
  Disassembly(absl::Span<const uint8_t> code, uint64_t address) {
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle_) != CS_ERR_OK) return;
    open_ = true;
    cs_option(handle_, CS_OPT_DETAIL, CS_OPT_ON);
    count_ = cs_disasm(handle_, code.data(), code.size(), address, 0, &instructions_);
  }
  ~Disassembly() {
    if (count_ != 0) cs_free(instructions_, count_);
    if (open_) cs_close(&handle_);
  }
  Disassembly(const Disassembly&) = delete;
  Disassembly& operator=(const Disassembly&) = delete;

  absl::Span<const cs_insn> all() const { return {instructions_, count_}; }
  // Up to which of its bytes it could be read.
  size_t bytes() const {
    size_t bytes = 0;
    for (const cs_insn& instruction : all()) bytes += instruction.size;
    return bytes;
  }
  bool IsIn(const cs_insn& instruction, unsigned group) const {
    return cs_insn_group(handle_, &instruction, static_cast<unsigned>(group));
  }
  // The target of a jump or call with a fixed one.
  std::optional<uint64_t> BranchTarget(const cs_insn& instruction) const {
    const cs_x86& x86 = instruction.detail->x86;
    if (!IsIn(instruction, CS_GRP_JUMP) && !IsIn(instruction, CS_GRP_CALL)) return std::nullopt;
    if (x86.op_count != 1 || x86.operands[0].type != X86_OP_IMM) return std::nullopt;
    return static_cast<uint64_t>(x86.operands[0].imm);
  }

 private:
  csh handle_ = 0;
  bool open_ = false;
  cs_insn* instructions_ = nullptr;
  size_t count_ = 0;
};

absl::Status TooFar(const cs_insn& instruction, absl::string_view why) {
  return absl::OutOfRangeError(absl::StrCat("its first instructions cannot be moved so far: ", instruction.mnemonic,
                                            " ", instruction.op_str, " ", why));
}

absl::Status Refuse(const cs_insn& instruction, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("its first instructions cannot be moved: ", instruction.mnemonic,
                                                    " ", instruction.op_str, " ", why));
}

class Mover {
 public:
  Mover(const Disassembly& code, uint64_t from, uint64_t to) : disassembly_(code), from_(from), to_(to) {}

  absl::Status Move(const cs_insn& instruction) {
    moved_.instructions.push_back({moved_.taken, moved_.code.size()});
    moved_.taken += instruction.size;
    if (disassembly_.IsIn(instruction, CS_GRP_RET) || disassembly_.IsIn(instruction, CS_GRP_CALL))
      return Refuse(instruction, "ends or leaves the function");
    if (const auto target = disassembly_.BranchTarget(instruction)) return MoveBranch(instruction, *target);
    if (disassembly_.IsIn(instruction, CS_GRP_BRANCH_RELATIVE))
      return Refuse(instruction, "is a short branch of its own");
    return MovePlain(instruction);
  }

  absl::StatusOr<RelocatedPrologue> Finish() {
    const absl::StatusOr<std::vector<uint8_t>> jump = EncodeJump(to_ + moved_.code.size(), from_ + moved_.taken);
    if (!jump.ok()) return jump.status();
    moved_.code.insert(moved_.code.end(), jump->begin(), jump->end());
    return std::move(moved_);
  }
  size_t taken() const { return moved_.taken; }

 private:
  uint64_t here() const { return to_ + moved_.code.size(); }

  void Append(const void* data, size_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    moved_.code.insert(moved_.code.end(), p, p + bytes);
  }

  // Short forms become near ones: the target is far away now.
  absl::Status MoveBranch(const cs_insn& instruction, uint64_t target) {
    const uint8_t* opcode = instruction.detail->x86.opcode;
    constexpr uint8_t kShortJump = 0xeb, kShortConditional = 0x70, kTwoBytes = 0x0f, kNearConditional = 0x80;
    std::vector<uint8_t> near;
    if (opcode[0] == kShortJump || opcode[0] == kJumpNear) {
      near = {kJumpNear};
    } else if ((opcode[0] & 0xf0) == kShortConditional) {
      near = {kTwoBytes, static_cast<uint8_t>(kNearConditional | (opcode[0] & 0x0f))};
    } else if (opcode[0] == kTwoBytes && (opcode[1] & 0xf0) == kNearConditional) {
      near = {kTwoBytes, opcode[1]};
    } else {
      return Refuse(instruction, "is a branch that has no long form");
    }
    const auto distance = Distance(target, here() + near.size() + sizeof(int32_t));
    if (!distance.has_value()) return TooFar(instruction, "leads too far");
    Append(near.data(), near.size());
    Append(&*distance, sizeof *distance);
    return absl::OkStatus();
  }

  absl::Status MovePlain(const cs_insn& instruction) {
    const cs_x86& x86 = instruction.detail->x86;
    const size_t at = moved_.code.size();
    const uint64_t next = here() + instruction.size;
    Append(instruction.bytes, instruction.size);
    for (int i = 0; i < x86.op_count; ++i) {
      if (x86.operands[i].type != X86_OP_MEM || x86.operands[i].mem.base != X86_REG_RIP) continue;
      const uint64_t target = instruction.address + instruction.size + static_cast<uint64_t>(x86.operands[i].mem.disp);
      const auto distance = Distance(target, next);
      if (x86.encoding.disp_offset == 0) return Refuse(instruction, "says nowhere what it reads");
      if (!distance.has_value()) return TooFar(instruction, "reads too far away");
      memcpy(&moved_.code[at + x86.encoding.disp_offset], &*distance, sizeof *distance);
      break;
    }
    return absl::OkStatus();
  }

  const Disassembly& disassembly_;
  uint64_t from_, to_;
  RelocatedPrologue moved_;
};

}  // namespace

absl::StatusOr<RelocatedPrologue> RelocatePrologue(absl::Span<const uint8_t> function, uint64_t from, uint64_t to) {
  const Disassembly disassembly(function, from);
  if (disassembly.bytes() < function.size())
    return absl::FailedPreconditionError("its instructions cannot be read to its end");
  Mover mover(disassembly, from, to);
  for (const cs_insn& instruction : disassembly.all()) {
    if (mover.taken() < kJumpBytes) {
      if (absl::Status status = mover.Move(instruction); !status.ok()) return status;
    }
    // Nothing may jump into the middle of what is replaced. Its very beginning stays a place to jump to.
    const auto target = disassembly.BranchTarget(instruction);
    if (target.has_value() && *target > from && *target < from + kJumpBytes)
      return Refuse(instruction, "jumps back into them");
  }
  if (mover.taken() < kJumpBytes)
    return absl::FailedPreconditionError(absl::StrFormat("it is too short a function (%d bytes)", function.size()));
  return mover.Finish();
}

absl::StatusOr<std::vector<uint8_t>> EncodeJump(uint64_t from, uint64_t to) {
  const auto distance = Distance(to, from + kJumpBytes);
  if (!distance.has_value())
    return absl::OutOfRangeError(absl::StrFormat("a jump from %#x to %#x is too far", from, to));
  std::vector<uint8_t> code(kJumpBytes, kJumpNear);
  memcpy(&code[1], &*distance, sizeof *distance);
  return code;
}

uint64_t DecodeJump(absl::Span<const uint8_t> code, uint64_t from) {
  if (code.size() < kJumpBytes || code[0] != kJumpNear) return 0;
  int32_t distance;
  memcpy(&distance, code.data() + 1, sizeof distance);
  return from + kJumpBytes + static_cast<uint64_t>(static_cast<int64_t>(distance));
}

}  // namespace nodeleak::tracer
