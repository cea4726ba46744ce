// Outside. The first instructions of a function, moved to another place, so that a jump can stand where they were.
// Pure: bytes in, bytes out.
#pragma once

#include <stdint.h>

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nodeleak::tracer {

inline constexpr size_t kJumpBytes = 5;  // jmp rel32

struct RelocatedPrologue {
  std::vector<uint8_t> code;  // the instructions as they are at the new place, then a jump to the rest of the function
  size_t taken = 0;           // bytes of the function that they stand for: kJumpBytes or more
  // Where an instruction that began inside the function begins now. Both are offsets.
  struct Instruction {
    size_t from, to;
  };
  std::vector<Instruction> instructions;
};

// `function` are the bytes of the whole function, which lies at `from`. Refused is what would not be the same code at
// `to`: a branch of the function into its own first bytes, a return or a call among them. OutOfRange: it would be from
// a place that is nearer.
absl::StatusOr<RelocatedPrologue> RelocatePrologue(absl::Span<const uint8_t> function, uint64_t from, uint64_t to);

// jmp rel32 at `from` to `to`. OutOfRange: too far.
absl::StatusOr<std::vector<uint8_t>> EncodeJump(uint64_t from, uint64_t to);
// Where a jmp rel32 that stands at `from` leads; 0: there is none.
uint64_t DecodeJump(absl::Span<const uint8_t> code, uint64_t from);

}  // namespace nodeleak::tracer
