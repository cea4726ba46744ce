// Outside. The places where the loaded objects of another process keep the address of a function that they call: what
// the dynamic linker has filled in (GOT and PLT slots). The second best way to hook a function whose own
// beginning cannot be replaced: calls through any other pointer (dlsym, a variable, within one library) pass it by.
#pragma once

#include <stdint.h>

#include <string>
#include <vector>

#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"

namespace nodeleak::tracer {

struct LinkageSlot {
  RemoteAddress address;
  RemoteRange owner;  // the object that it lies in
};

// Of every object but `skipped`. Reads only; what a damaged object says is bounded.
std::vector<LinkageSlot> FindLinkageSlots(const RemoteMemory& memory, const RemoteObjects& objects, const char* symbol,
                                          const RemoteObject* skipped);

// Of these, the ones that lead to `function` now, or will at their first call (bound lazily).
std::vector<RemoteAddress> SlotsThatLeadTo(const RemoteMemory& memory, const std::vector<LinkageSlot>& slots,
                                           RemoteAddress function);

}  // namespace nodeleak::tracer
