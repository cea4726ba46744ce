#include "tracer/remote_stub.h"

#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <initializer_list>

namespace nodeleak::tracer {
namespace {

enum Register : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};

constexpr std::array<Register, 6> kFunctionArguments = {kRdi, kRsi, kRdx, kRcx, kR8, kR9};
constexpr std::array<Register, 6> kSyscallArguments = {kRdi, kRsi, kRdx, kR10, kR8, kR9};

constexpr uint64_t kRedZone = 128;   // below rsp belongs to the interrupted function (System V ABI, 3.2.2)
constexpr uint64_t kAlignment = 64;  // of an xsave area
constexpr uint32_t kXsaveAt = 64;    // from the stub's rsp
constexpr uint32_t kXsaveHeaderAt = 512;
constexpr uint32_t kXsaveHeaderBytes = 64;

// CPUID leaf 0xd: bytes of an xsave area for what the kernel has enabled.
uint64_t XsaveBytes() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __cpuid_count(0xd, 0, a, b, c, d);
  return b;
}

// Only the instructions that a stub needs.
class Assembler {
 public:
  void Bytes(std::initializer_list<uint8_t> bytes) { code_.insert(code_.end(), bytes); }
  void Word32(uint32_t value) { Append(&value, sizeof value); }
  void Word64(uint64_t value) { Append(&value, sizeof value); }

  void Move(Register target, uint64_t value) {  // movabs
    Bytes({static_cast<uint8_t>(0x48 | target >> 3), static_cast<uint8_t>(0xb8 | (target & 7))});
    Word64(value);
  }
  void Load(Register target, uint8_t offset) {  // mov target, [rbx + offset]
    Bytes({static_cast<uint8_t>(0x48 | (target >> 3) << 2), 0x8b, static_cast<uint8_t>(0x43 | (target & 7) << 3),
           offset});
  }
  void StoreRax(uint8_t offset) { Bytes({0x48, 0x89, 0x43, offset}); }  // mov [rbx + offset], rax
  void StoreState(uint32_t state) {                                     // mov qword [rbx - 8], state
    Bytes({0x48, 0xc7, 0x43, 0xf8});
    Word32(state);
  }
  // cmp qword [rbx + offset], 0; then a jump over what comes next. Returns where its distance is to be written.
  size_t SkipIf(bool zero, uint8_t offset) {
    Bytes({0x48, 0x83, 0x7b, offset, 0x00, 0x0f, static_cast<uint8_t>(zero ? 0x84 : 0x85)});
    Word32(0);
    return code_.size() - 4;
  }
  void LandHere(size_t jump) {
    const auto distance = static_cast<uint32_t>(code_.size() - (jump + 4));
    memcpy(&code_[jump], &distance, sizeof distance);
  }
  void VectorState(uint8_t operation) {           // xsave64 (0x20) or xrstor64 (0x28) [rsp + kXsaveAt], all components
    Bytes({0x83, 0xc8, 0xff, 0x83, 0xca, 0xff});  // or eax, -1; or edx, -1
    Bytes({0x48, 0x0f, 0xae, static_cast<uint8_t>(0x84 | operation), 0x24});
    Word32(kXsaveAt);
  }
  void ClearXsaveHeader() {
    Bytes({0x31, 0xc0});  // xor eax, eax
    for (uint32_t at = 0; at < kXsaveHeaderBytes; at += 8) {
      Bytes({0x48, 0x89, 0x84, 0x24});  // mov [rsp + ...], rax
      Word32(kXsaveAt + kXsaveHeaderAt + at);
    }
  }
  std::vector<uint8_t> Take() { return std::move(code_); }

 private:
  void Append(const void* data, size_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    code_.insert(code_.end(), p, p + bytes);
  }
  std::vector<uint8_t> code_;
};

uint8_t ResultOffset(int step) { return static_cast<uint8_t>(8 * step); }

void EmitStep(const RemoteStep& step, int index, Assembler* code) {
  size_t skip = 0;
  if (step.when != RemoteStep::When::kAlways)
    skip = code->SkipIf(step.when == RemoteStep::When::kIfNotZero, ResultOffset(step.condition_step));
  const auto& registers = step.kind == RemoteStep::Kind::kSyscall ? kSyscallArguments : kFunctionArguments;
  for (size_t i = 0; i < step.arguments.size() && i < registers.size(); ++i) {
    if (static_cast<int>(i) == step.result_argument) {
      code->Load(registers[i], ResultOffset(step.result_step));
    } else {
      code->Move(registers[i], step.arguments[i]);
    }
  }
  if (step.kind == RemoteStep::Kind::kSyscall) {
    code->Move(kRax, step.target);
    code->Bytes({0x0f, 0x05});  // syscall
  } else {
    code->Move(kR11, step.target);
    code->Bytes({0x31, 0xc0, 0x41, 0xff, 0xd3});  // xor eax, eax (no vector arguments); call r11
  }
  code->StoreRax(ResultOffset(index));
  if (skip != 0) code->LandHere(skip);
}

struct Resumption {
  uint64_t rip, rax;
};

// What the kernel does on the way back to the program after a system call was interrupted without a handler being run
// (arch/x86/kernel/signal.c, arch_do_signal_or_restart).
Resumption ResumeAt(const user_regs_struct& registers) {
  constexpr int64_t kRestartSys = -512, kRestartNoInterrupt = -513, kRestartNoHandler = -514, kRestartBlock = -516;
  constexpr uint64_t kSyscallBytes = 2;
  const auto result = static_cast<int64_t>(registers.rax);
  if (static_cast<int64_t>(registers.orig_rax) < 0) return {registers.rip, registers.rax};
  if (result == kRestartSys || result == kRestartNoInterrupt || result == kRestartNoHandler)
    return {registers.rip - kSyscallBytes, registers.orig_rax};
  if (result == kRestartBlock) return {registers.rip - kSyscallBytes, SYS_restart_syscall};
  return {registers.rip, registers.rax};
}

void EmitReturn(const user_regs_struct& registers, Assembler* code) {
  const Resumption resume = ResumeAt(registers);
  const struct {
    Register target;
    uint64_t value;
  } rows[] = {{kRax, resume.rax},    {kRcx, registers.rcx}, {kRdx, registers.rdx}, {kRbx, registers.rbx},
              {kRbp, registers.rbp}, {kRsi, registers.rsi}, {kRdi, registers.rdi}, {kR8, registers.r8},
              {kR9, registers.r9},   {kR10, registers.r10}, {kR11, registers.r11}, {kR12, registers.r12},
              {kR13, registers.r13}, {kR14, registers.r14}, {kR15, registers.r15}};
  for (const auto& row : rows) code->Move(row.target, row.value);
  constexpr uint32_t kUserFlags = 0xcd5;  // carry, parity, adjust, zero, sign, direction, overflow
  code->Bytes({0x68});                    // push
  code->Word32(static_cast<uint32_t>(registers.eflags) & kUserFlags);
  code->Bytes({0x9d});  // popfq
  code->Move(kRsp, registers.rsp);
  code->Bytes({0xff, 0x25});  // jmp [rip + 0]
  code->Word32(0);
  code->Word64(resume.rip);
}

}  // namespace

uint64_t StubStackBytes() { return kRedZone + kXsaveAt + XsaveBytes() + 2 * kAlignment; }

uint64_t StubStack(const user_regs_struct& registers) { return (registers.rsp - StubStackBytes()) & ~(kAlignment - 1); }

std::vector<uint8_t> BuildStub(const user_regs_struct& registers, const std::vector<RemoteStep>& steps,
                               const RemoteMailbox& mailbox) {
  constexpr uint8_t kXsave = 0x20, kXrstor = 0x28;
  Assembler code;
  code.ClearXsaveHeader();
  code.VectorState(kXsave);
  code.Bytes({0xfc});  // cld: the ABI wants it clear at a call
  code.Move(kRbx, ToNumber(mailbox.Result(0)));
  code.StoreState(RemoteMailbox::kRunning);
  for (size_t i = 0; i < steps.size(); ++i) EmitStep(steps[i], static_cast<int>(i), &code);
  code.VectorState(kXrstor);
  code.StoreState(RemoteMailbox::kDone);
  EmitReturn(registers, &code);
  return code.Take();
}

}  // namespace nodeleak::tracer
