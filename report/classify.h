// Outside node. From a stack to: which memory is it (Kind), who asked for it (origin), which application line (site).
// The knowledge is one table of rules over function and module names in classify.cc. Pure: no files are read.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "report/model.h"

namespace nodeleak::report {

// What one native frame says about a block allocated below it.
enum class FrameRole : uint8_t {
  kOwner,           // the code that wanted the memory: the search ends here
  kPlumbing,        // allocates on behalf of its caller (malloc wrappers, containers): look further out
  kSpecial,         // an allocator for one kind of memory: decides the kind at once, the search for the origin goes on
  kSpecialMapping,  // the same for mappings; the blocks it allocates are its own bookkeeping
};
// A kind from a library of its own ("zlib") beats one that only says in whose binary the code is ("node").
enum class Certainty : uint8_t { kBinary, kLibrary };

struct FrameClass {
  FrameRole role = FrameRole::kOwner;
  Kind kind = Kind::kNative;
  Certainty certainty = Certainty::kBinary;
};

// Where a native frame's code is.
enum class ModuleRole : uint8_t {
  kOther,
  kNode,     // the node executable or libnode.so: everything node links statically is told apart by function names
  kAddon,    // *.node
  kLibrary,  // a shared library the table knows (libssl, libz...)
  kLibc,     // libc, ld-linux, libpthread...
  kRuntime,  // libstdc++, libgcc, preloaded allocators: plumbing
  kShim,     // nodeleak's own
};
struct ModuleClass {
  ModuleRole role = ModuleRole::kOther;
  Kind kind = Kind::kNative;
};
ModuleClass ClassifyModule(std::string_view path, bool is_node_executable);
// `function` is short (ShortFunctionName), `demangled` the same name in full: only there a Rust impl tells its crates.
FrameClass ClassifyFrame(const ModuleClass& module, std::string_view function, std::string_view demangled);

// Not shown and not looked at: the shim's own frames, V8's assembly stubs in the middle of a stack.
bool IsHiddenFrame(const ModuleClass& module, std::string_view function);

struct ClassifiedFrame {
  Frame frame;
  FrameClass native;  // meaningful for kNative
  bool hidden = false;
  uint32_t look = 0;  // equal for frames that a reader cannot tell apart (FrameTable)
};
using StackView = std::vector<const ClassifiedFrame*>;  // innermost first, without hidden frames

enum class Source : uint8_t { kBlock, kMapping, kThreadStack };  // how it was asked for

struct Classification {
  Kind kind = Kind::kNative;
  std::optional<size_t> origin;  // indices into the stack
  std::optional<size_t> site;
  bool is_cage = false;  // address space that V8 puts its pages into, not the pages themselves
};
Classification ClassifyStack(absl::Span<const ClassifiedFrame* const> stack, Source memory);

// "node:fs", "node:internal/streams/readable", and what older versions call "internal/..." or "fs.js".
bool IsNodeInternalFile(std::string_view file);
bool IsInNodeModules(std::string_view file);

}  // namespace nodeleak::report
