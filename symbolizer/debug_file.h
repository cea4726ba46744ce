// Outside node. Finds what was stripped from a module: separate debug files and .gnu_debugdata.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "symbolizer/elf_file.h"
#include "symbolizer/symbol_table.h"

namespace nodeleak::symbolizer {

// By build id (DIR/.build-id/xx/yyyy.debug), then by .gnu_debuglink (beside the module, .debug/ beside it, DIR/<path>),
// in the root of the process first, then in ours. Its build id must equal that of the module; where either has none,
// the checksum of the debuglink must fit. nullptr when there is none.
std::unique_ptr<ElfFile> FindDebugFile(const ElfFile& module, const std::string& root,
                                       const std::vector<std::string>& debug_directories);

// Adds the symbols of .gnu_debugdata (an ELF file compressed by xz inside of the module: Fedora, RHEL), if there.
// Returns how many.
size_t AddMiniDebugSymbols(const ElfFile& module, SymbolTable& table);

}  // namespace nodeleak::symbolizer
