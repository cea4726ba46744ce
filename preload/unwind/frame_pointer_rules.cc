#include "preload/unwind/frame_pointer_rules.h"

#include <stddef.h>
#include <string.h>

namespace nodeleak::preload {
namespace {

// An entry of .eh_frame_hdr's search table, both relative to the header.
struct TableEntry {
  int32_t start;
  int32_t description;
};

// The head of a frame description entry with pc-relative 4-byte addresses (encoding 0x1b, what gcc and clang emit on
// x86-64).
struct FrameDescription {
  uint32_t length;
  uint32_t common_entry;
  int32_t start;  // relative to this field
  uint32_t range;
};

template <typename T>
T Read(uint64_t address) {
  T value;
  memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

// Start of the function that contains pc; 0 when the tables do not say so in the usual form.
uint64_t FunctionStart(const ModuleInfo& module, uint64_t pc) {
  uint64_t low = 0, high = module.unwind_table_bytes / sizeof(TableEntry);
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    const TableEntry entry = Read<TableEntry>(module.unwind_table + middle * sizeof(TableEntry));
    if (module.eh_frame_hdr + static_cast<uint64_t>(static_cast<int64_t>(entry.start)) <= pc) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return 0;
  const TableEntry entry = Read<TableEntry>(module.unwind_table + (low - 1) * sizeof(TableEntry));
  const uint64_t start = module.eh_frame_hdr + static_cast<uint64_t>(static_cast<int64_t>(entry.start));
  const uint64_t description = module.eh_frame_hdr + static_cast<uint64_t>(static_cast<int64_t>(entry.description));
  if (description < module.start || description + sizeof(FrameDescription) > module.end) return 0;
  const FrameDescription head = Read<FrameDescription>(description);
  const uint64_t said =
      description + offsetof(FrameDescription, start) + static_cast<uint64_t>(static_cast<int64_t>(head.start));
  if (said != start || pc - start >= head.range) return 0;
  return start;
}

constexpr uint8_t kEndBranch[] = {0xf3, 0x0f, 0x1e, 0xfa};
constexpr uint8_t kPushRbp = 0x55;
constexpr uint8_t kSetRbp[] = {0x48, 0x89, 0xe5};  // mov %rsp,%rbp; the compiler may schedule others in between
constexpr uint64_t kLongestPrologue = 40;

bool HasPrologue(uint64_t start, uint64_t pc) {
  const uint8_t* code = reinterpret_cast<const uint8_t*>(start);
  const uint64_t length = pc - start < kLongestPrologue ? pc - start : kLongestPrologue;
  uint64_t at = length >= sizeof kEndBranch && memcmp(code, kEndBranch, sizeof kEndBranch) == 0 ? sizeof kEndBranch : 0;
  if (at >= length || code[at] != kPushRbp) return false;
  for (++at; at + sizeof kSetRbp <= length; ++at) {
    if (memcmp(code + at, kSetRbp, sizeof kSetRbp) == 0) return true;
  }
  return false;
}

// Per module, by its place in the recording. Approximate counts are good enough.
struct Trust {
  uint32_t asked;
  bool disagreed;
};
constexpr uint32_t kTrackedModules = 256;
Trust g_trust[kTrackedModules];

Trust& TrustOf(const ModuleInfo& module) { return g_trust[module.recording_index % kTrackedModules]; }

}  // namespace

bool HasUnwindEntry(const ModuleInfo& module, uint64_t return_address) {
  return module.unwind_table == 0 || FunctionStart(module, return_address - 1) != 0;
}

bool IsPlantedStart(const ModuleInfo& module, uint64_t return_address) {
  return module.unwind_table != 0 && FunctionStart(module, return_address) == return_address &&
         FunctionStart(module, return_address - 1) == 0;
}

UnwindRule FramePointerRule(const ModuleInfo& module, uint64_t return_address) {
  if (module.unwind_table == 0 || TrustOf(module).disagreed) return UnwindRule();
  const uint64_t pc = return_address - 1;
  const uint64_t start = FunctionStart(module, pc);
  if (start < module.text_start || !HasPrologue(start, pc)) return UnwindRule();
  UnwindRule rule;
  UnwindRule::Encode(true, 16, -16, &rule);
  return rule;
}

bool ShouldCheckFramePointers(const ModuleInfo& module) {
  constexpr uint32_t kFirst = 16, kEvery = 64;
  const uint32_t asked = __atomic_fetch_add(&TrustOf(module).asked, 1, __ATOMIC_RELAXED);
  return asked < kFirst || asked % kEvery == 0;
}

void FramePointersChecked(const ModuleInfo& module, bool agreed) {
  if (!agreed) __atomic_store_n(&TrustOf(module).disagreed, true, __ATOMIC_RELAXED);
}

}  // namespace nodeleak::preload
