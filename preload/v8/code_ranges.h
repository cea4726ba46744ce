// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
//
// Where V8's machine code lies: the embedded builtins in .text, their copies that V8 maps a second time (one per
// isolate, node 20+, in no link map), and JIT memory. Lookups of known pcs are lock-free.
#pragma once

#include <stdint.h>

#include "preload/v8/js_frames.h"

namespace nodeleak::preload::v8 {

// `pc` is a return address. In text of an ELF module only the builtins count. `only_v8`: whoever is there, it is no
// library that nobody told us of; then the maps are read again when executable memory changed, otherwise once a second
// at most.
CodeKind FindCodeKind(uint64_t pc, bool in_elf_text, bool only_v8 = false);

// Executable memory came or went: unknown pcs are looked up in /proc/thread-self/maps again. True when code is gone
// that was known: what FindCodeKind said of pcs in there no longer holds.
bool CodeMemoryChanged(uint64_t start, uint64_t bytes, bool unmapped);

// For tests: what /proc/thread-self/maps says.
struct ExecutableRange {
  uint64_t start, end;
  CodeKind kind;
};
// Reads the lines of /proc/thread-self/maps; `own_text_start` is where V8's module has its own text: other executable
// mappings of the same file are copies of the builtins.
uint32_t ParseExecutableRanges(const char* maps, uint64_t own_text_start, ExecutableRange* ranges, uint32_t capacity);

}  // namespace nodeleak::preload::v8
