// Outside node. From (module, address in the file) to function, file and line, with inlined functions.
//
// Every file named here is untrusted: recorded paths may have become FIFOs, devices, directories or other files. Only
// regular files are opened, never waiting, and a file whose build id is not the recorded one is refused: its addresses
// mean something else now. On failure a status says why in a sentence; the caller then shows module+offset.
//
// Modules are opened at first use and kept; answers are kept per address. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nodeleak::symbolizer {

struct ModuleRef {
  std::string path;               // as in /proc/PID/maps, from the view of the recorded process
  std::vector<uint8_t> build_id;  // as recorded; empty: the module had none, or it was not read
  std::string root;               // "" or "/proc/PID/root": where `path` starts
};

struct SymbolFrame {
  std::string function;  // demangled, in full: see ShortFunctionName in names.h for tables
  std::string
      linkage_name;      // as in the symbol table or DW_AT_linkage_name, version stripped; may be empty when inlined
  std::string file;      // "" when there is no line information
  uint32_t line = 0;     // 0: unknown
  uint32_t column = 0;   // 0: unknown
  bool inlined = false;  // was inlined into the frame that follows
  uint64_t offset = 0;   // of the return address from the start of the function; 0 for inlined frames
};

enum class ModuleState {
  kVerified,    // build id equal to the recorded one
  kUnverified,  // no build id on one of the two sides: names may belong to a newer file
  kRefused,     // changed since, gone, not a regular file, not ELF: no names at all
};

// What is known of a module, and why something is missing.
struct ModuleInfo {
  ModuleState state = ModuleState::kRefused;
  bool has_symbols = false;  // .symtab (own, of the debug file, or .gnu_debugdata)
  bool has_lines = false;    // DWARF
  std::string debug_file;    // separate debug file in use; "" when none
  std::string why;           // a sentence when refused, unverified or without symbols; otherwise ""
};

struct SymbolizerOptions {
  // Where separate debug files live: DIR/.build-id/xx/yyy.debug and DIR/<path of module>/<debuglink>.
  std::vector<std::string> debug_directories = {"/usr/lib/debug"};
  bool lines = true;  // false: names from symbol tables only, no DWARF
};

class Symbolizer {
 public:
  explicit Symbolizer(SymbolizerOptions options = {});
  ~Symbolizer();
  Symbolizer(Symbolizer&&) noexcept;
  Symbolizer& operator=(Symbolizer&&) noexcept;

  // `return_address` is a virtual address in the file (pc - bias) that points *after* a call: the instruction before it
  // is looked up. Innermost (most deeply inlined) frame first; at least one frame when ok.
  absl::StatusOr<std::vector<SymbolFrame>> Symbolize(const ModuleRef& module, uint64_t return_address);

  // The same for many addresses of one module; the answers are in the order of the addresses.
  std::vector<absl::StatusOr<std::vector<SymbolFrame>>> SymbolizeBatch(const ModuleRef& module,
                                                                       absl::Span<const uint64_t> return_addresses);

  // Opens the module when it is not yet open. Valid as long as the Symbolizer.
  const ModuleInfo& Describe(const ModuleRef& module);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nodeleak::symbolizer
