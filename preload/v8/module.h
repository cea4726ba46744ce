// Runs inside node. The ELF module that holds V8: the executable in the official binaries, libnode.so in Debian's. Only
// used at start: may read files.
#pragma once

#include <stdint.h>

namespace nodeleak::preload::v8 {

struct V8Module {
  uint64_t text_start, text_end;  // its executable segment in memory
  uint64_t bias;
  char path[512];
};
extern V8Module g_module;

// False: no V8 in this process.
bool FindV8Module();

// The int at a symbol: .dynsym, else .symtab of the module's file (V8 metadata is local in some builds).
bool ReadModuleInt(const char* symbol, int32_t* value);

// Address of a data symbol by the same two ways; 0 when unknown.
uint64_t FindModuleSymbol(const char* symbol);

// v8::internal::Builtin_AtomicsWait, which is on the stack of a thread that sleeps in Atomics.wait; 0 when unknown (a
// stripped node). May look into the file again.
uint64_t FindWaitBuiltin();

// The file is mapped on the first look into .symtab; drop it when the start is over.
void ForgetModuleFile();

}  // namespace nodeleak::preload::v8
