// Outside. Machine code for a borrowed thread of another process: it saves every register, does a few calls, notes
// their results, puts every register back, and jumps to where the thread was. From the moment the thread runs it nobody
// else is needed: a tracer that dies leaves a thread that returns by itself.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

#include <vector>

#include "tracer/remote_address.h"

namespace nodeleak::tracer {

// One call in the borrowed thread.
struct RemoteStep {
  enum class Kind { kFunction, kSyscall };
  enum class When { kAlways, kIfNotZero, kIfZero };  // of the result of `condition_step`

  Kind kind = Kind::kFunction;
  uint64_t target = 0;  // address or number
  std::vector<uint64_t> arguments;
  int result_argument = -1;  // this argument is the result of `result_step` instead
  int result_step = 0;
  When when = When::kAlways;
  int condition_step = 0;

  static RemoteStep Call(RemoteAddress function, std::vector<uint64_t> arguments) {
    RemoteStep step;
    step.target = ToNumber(function);
    step.arguments = std::move(arguments);
    return step;
  }
  static RemoteStep Syscall(long number, std::vector<uint64_t> arguments) {
    RemoteStep step;
    step.kind = Kind::kSyscall;
    step.target = static_cast<uint64_t>(number);
    step.arguments = std::move(arguments);
    return step;
  }
};

// Written by the stub, read by the tracer: a word that becomes kDone, then one result for each step.
struct RemoteMailbox {
  static constexpr uint64_t kBusy = 0x4c41434b4c444f4eull;
  static constexpr uint64_t kDone = 1;
  RemoteAddress address;
  RemoteAddress Result(size_t step) const { return address + 8 + 8 * step; }
  static size_t Bytes(size_t steps) { return 8 + 8 * steps; }
};

inline constexpr size_t kMaxRemoteSteps = 12;

// `registers` are the thread's at the moment it was stopped. A system call that was interrupted goes on as the kernel
// would have made it go on.
std::vector<uint8_t> BuildStub(const user_regs_struct& registers, const std::vector<RemoteStep>& steps,
                               const RemoteMailbox& mailbox);

// The stack pointer that the stub starts with: below the red zone, aligned, with room for the vector registers.
uint64_t StubStack(const user_regs_struct& registers);
// How much stack that takes in all, without what the calls themselves take.
uint64_t StubStackBytes();

}  // namespace nodeleak::tracer
