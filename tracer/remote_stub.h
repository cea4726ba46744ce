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

inline constexpr size_t kMaxRemoteSteps = 12;

// Shared by the tracer, the stub and, where the tracer was killed, the next tracer.
struct RemoteMailbox {
  // Written by the tracer before the thread may run, and when its room is free again; by the stub when it begins and
  // when its calls are done. The stub's fit into an immediate.
  static constexpr uint64_t kPrepared = 0x4c41434b4c444f4eull, kFree = 0;
  static constexpr uint32_t kRunning = 0x4b4c444eu, kDone = 0x4b4c444fu;
  struct Content {
    uint64_t state;
    uint64_t results[kMaxRemoteSteps];
    uint64_t thread;  // as the process itself knows it
    uint64_t stack;   // its stack pointer when it was borrowed: what the stub leaves there lies below
  };
  RemoteAddress address;
  RemoteAddress Result(size_t step) const { return address + 8 + 8 * step; }
};
static_assert(sizeof(RemoteMailbox::Content) == 120);

// `registers` are the thread's at the moment it was stopped. A system call that was interrupted goes on as the kernel
// would have made it go on.
std::vector<uint8_t> BuildStub(const user_regs_struct& registers, const std::vector<RemoteStep>& steps,
                               const RemoteMailbox& mailbox);

// The stack pointer that the stub starts with: below the red zone, aligned, with room for the vector registers.
uint64_t StubStack(const user_regs_struct& registers);
// How much stack that takes in all, without what the calls themselves take.
uint64_t StubStackBytes();

}  // namespace nodeleak::tracer
