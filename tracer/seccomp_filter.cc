#include "tracer/seccomp_filter.h"

#include <string.h>

namespace nodeleak::tracer {
namespace {

class Machine {
 public:
  explicit Machine(const seccomp_data& call) : call_(call) {}

  // False: the filter has ended, or cannot go on.
  bool Step(const sock_filter& code, size_t* next) {
    switch (BPF_CLASS(code.code)) {
      case BPF_LD:
        return Load(code, &a_);
      case BPF_LDX:
        return Load(code, &x_);
      case BPF_ST:
        return Store(code, a_);
      case BPF_STX:
        return Store(code, x_);
      case BPF_ALU:
        return Calculate(code);
      case BPF_JMP:
        *next += JumpOver(code);
        return true;
      case BPF_RET:
        result_ = BPF_RVAL(code.code) == BPF_A ? a_ : code.k;
        return false;
      default:
        (BPF_MISCOP(code.code) == BPF_TAX ? x_ : a_) = BPF_MISCOP(code.code) == BPF_TAX ? a_ : x_;
        return true;
    }
  }
  uint32_t result() const { return result_; }

 private:
  bool Load(const sock_filter& code, uint32_t* to) const {
    switch (BPF_MODE(code.code)) {
      case BPF_ABS:
        if (code.k > sizeof call_ - sizeof *to || code.k % sizeof *to != 0) return false;
        memcpy(to, reinterpret_cast<const char*>(&call_) + code.k, sizeof *to);
        return true;
      case BPF_IMM:
        *to = code.k;
        return true;
      case BPF_MEM:
        if (code.k >= BPF_MEMWORDS) return false;
        *to = memory_[code.k];
        return true;
      case BPF_LEN:
        *to = sizeof call_;
        return true;
      default:
        return false;
    }
  }

  bool Store(const sock_filter& code, uint32_t value) {
    if (code.k >= BPF_MEMWORDS) return false;
    memory_[code.k] = value;
    return true;
  }

  uint32_t Operand(const sock_filter& code) const { return BPF_SRC(code.code) == BPF_X ? x_ : code.k; }

  bool Calculate(const sock_filter& code) {
    constexpr uint32_t kBits = 32;
    const uint32_t operand = Operand(code);
    switch (BPF_OP(code.code)) {
      case BPF_ADD:
        a_ += operand;
        return true;
      case BPF_SUB:
        a_ -= operand;
        return true;
      case BPF_MUL:
        a_ *= operand;
        return true;
      case BPF_DIV:
        if (operand == 0) return false;
        a_ /= operand;
        return true;
      case BPF_AND:
        a_ &= operand;
        return true;
      case BPF_OR:
        a_ |= operand;
        return true;
      case BPF_XOR:
        a_ ^= operand;
        return true;
      case BPF_LSH:
        a_ = operand < kBits ? a_ << operand : 0;
        return true;
      case BPF_RSH:
        a_ = operand < kBits ? a_ >> operand : 0;
        return true;
      case BPF_NEG:
        a_ = 0 - a_;
        return true;
      default:
        return false;
    }
  }

  size_t JumpOver(const sock_filter& code) const {
    const uint32_t operand = Operand(code);
    switch (BPF_OP(code.code)) {
      case BPF_JEQ:
        return a_ == operand ? code.jt : code.jf;
      case BPF_JGT:
        return a_ > operand ? code.jt : code.jf;
      case BPF_JGE:
        return a_ >= operand ? code.jt : code.jf;
      case BPF_JSET:
        return (a_ & operand) != 0 ? code.jt : code.jf;
      default:
        return code.k;  // BPF_JA
    }
  }

  const seccomp_data& call_;
  uint32_t a_ = 0, x_ = 0;
  uint32_t memory_[BPF_MEMWORDS] = {};
  uint32_t result_ = SECCOMP_RET_KILL_PROCESS;
};

}  // namespace

uint32_t RunSeccompFilter(const SeccompFilter& filter, const seccomp_data& call) {
  Machine machine(call);
  // Jumps lead forward only, so it ends.
  for (size_t at = 0; at < filter.size();) {
    const sock_filter& code = filter[at++];
    if (!machine.Step(code, &at)) return machine.result();
  }
  return SECCOMP_RET_KILL_PROCESS;
}

uint32_t RunSeccompFilters(const std::vector<SeccompFilter>& filters, const seccomp_data& call) {
  uint32_t strictest = SECCOMP_RET_ALLOW;
  for (const SeccompFilter& filter : filters) {
    const uint32_t result = RunSeccompFilter(filter, call);
    // As signed numbers the stricter action is the smaller one: linux/seccomp.h.
    const auto action = [](uint32_t value) { return static_cast<int32_t>(value & SECCOMP_RET_ACTION_FULL); };
    if (action(result) < action(strictest)) strictest = result;
  }
  return strictest;
}

}  // namespace nodeleak::tracer
