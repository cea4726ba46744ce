#include "tracer/linkage_slots.h"

#include <elf.h>
#include <string.h>

#include <algorithm>

namespace nodeleak::tracer {
namespace {

constexpr uint64_t kMostRelocationBytes = 64 << 20;  // of one table; node's own has some megabytes

// Not R_X86_64_64: that is a variable of the program, which may compare it, and may have put something else there.
bool IsOfTheLinker(uint32_t type) {
  constexpr uint32_t kTypes[] = {R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT};
  return std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes);
}

std::vector<Elf64_Rela> ReadTable(const RemoteMemory& memory, const RemoteRange& table) {
  std::vector<Elf64_Rela> entries(std::min(table.bytes(), kMostRelocationBytes) / sizeof(Elf64_Rela));
  if (!memory.TryRead(table.start, entries.data(), entries.size() * sizeof(Elf64_Rela))) entries.clear();
  return entries;
}

bool IsNamed(const RemoteMemory& memory, const RemoteObject& object, uint32_t index, const char* name) {
  Elf64_Sym symbol;
  if (!memory.TryRead(object.symbols + uint64_t{index} * sizeof symbol, &symbol, sizeof symbol)) return false;
  std::string found(strlen(name) + 1, '\0');
  return memory.TryRead(object.strings + symbol.st_name, found.data(), found.size()) &&
         found.c_str() == std::string(name);
}

// What a slot leads to that is bound at its first call: the part of its PLT entry that pushes the number of the
// relocation. Somebody else's function in the same library is not taken for it.
bool IsLazyBinding(const RemoteMemory& memory, uint64_t target) {
  constexpr uint8_t kEndBranch[] = {0xf3, 0x0f, 0x1e, 0xfa}, kPush = 0x68;
  uint8_t code[sizeof kEndBranch + 1];
  if (!memory.TryRead(static_cast<RemoteAddress>(target), code, sizeof code)) return false;
  return code[0] == kPush || (memcmp(code, kEndBranch, sizeof kEndBranch) == 0 && code[sizeof kEndBranch] == kPush);
}

}  // namespace

std::vector<LinkageSlot> FindLinkageSlots(const RemoteMemory& memory, const RemoteObjects& objects, const char* symbol,
                                          const RemoteObject* skipped) {
  std::vector<LinkageSlot> slots;
  for (const RemoteObject& object : objects.all()) {
    if (&object == skipped) continue;
    for (const RemoteRange& table : {object.relocations, object.plt_relocations})
      for (const Elf64_Rela& entry : ReadTable(memory, table)) {
        if (!IsOfTheLinker(static_cast<uint32_t>(ELF64_R_TYPE(entry.r_info))) || entry.r_addend != 0) continue;
        const auto address = static_cast<RemoteAddress>(object.bias + entry.r_offset);
        const bool inside = object.range.Contains(ToNumber(address)) && ToNumber(address) % sizeof(uint64_t) == 0;
        if (inside && IsNamed(memory, object, static_cast<uint32_t>(ELF64_R_SYM(entry.r_info)), symbol))
          slots.push_back({address, object.range});
      }
  }
  return slots;
}

std::vector<RemoteAddress> SlotsThatLeadTo(const RemoteMemory& memory, const std::vector<LinkageSlot>& slots,
                                           RemoteAddress function) {
  std::vector<RemoteAddress> found;
  for (const LinkageSlot& slot : slots) {
    uint64_t target = 0;
    if (!memory.TryRead(slot.address, &target, sizeof target)) continue;
    const bool lazy =
        slot.owner.Contains(target) && !slot.owner.Contains(ToNumber(function)) && IsLazyBinding(memory, target);
    if (target == ToNumber(function) || lazy) found.push_back(slot.address);
  }
  return found;
}

}  // namespace nodeleak::tracer
