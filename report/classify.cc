#include "report/classify.h"

#include <algorithm>
#include <iterator>

#include "report/classify_rules.h"

namespace nodeleak::report {
namespace {

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::string_view FileName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool Matches(const FunctionRule& rule, std::string_view function) {
  switch (rule.match) {
    case Match::kExact:
      return function == rule.text;
    case Match::kPrefix:
      return function.starts_with(rule.text);
    case Match::kContains:
      return Contains(function, rule.text);
  }
  return false;
}

const FunctionRule* FindRule(absl::Span<const FunctionRule> rules, std::string_view function) {
  for (const FunctionRule& rule : rules) {
    if (Matches(rule, function)) return &rule;
  }
  return nullptr;
}

bool IsOfRustLibrary(std::string_view path) {
  for (std::string_view crate : kRustLibraryCrates) {
    if (path.starts_with(crate)) return true;
  }
  return false;
}

// "<Self as Trait>::f" and "<Self>::f". Self decides; where it has no path (a type parameter, a slice) the trait does.
bool IsImplOfRustLibrary(std::string_view demangled) {
  if (!demangled.starts_with('<')) return false;
  const size_t self = demangled.find_first_not_of("<&*[( ");
  if (self == std::string_view::npos) return false;
  std::string_view type = demangled.substr(self);
  for (std::string_view mark : {"mut ", "const ", "dyn "}) {
    if (type.starts_with(mark)) type.remove_prefix(mark.size());
  }
  if (IsOfRustLibrary(type)) return true;
  const size_t as = type.find(" as ");
  const bool has_path = type.substr(0, type.find_first_of(" <>[]();,")).find("::") != std::string_view::npos;
  return !has_path && as != std::string_view::npos && IsOfRustLibrary(type.substr(as + 4));
}

// Plumbing is somebody's too, when nobody further out wants the memory: the binary it is in.
FrameClass InBinary(FrameClass frame, Kind binary) {
  if (frame.certainty == Certainty::kBinary) frame.kind = binary;
  return frame;
}

// An addon that brings its own zlib or sqlite is still the addon.
FrameClass ClassifyInAddon(bool is_plumbing) {
  return is_plumbing ? InBinary(kPlumbing, Kind::kAddon) : OwnerOf(Kind::kAddon);
}

FrameClass ClassifyInNode(std::string_view function) {
  if (function.empty()) return BinaryOf(Kind::kNative);  // stripped: we do not know
  const FunctionRule* rule = FindRule(kNodeRules, function);
  if (rule == nullptr) return BinaryOf(Kind::kNode);
  if (rule->result.role != FrameRole::kPlumbing) return rule->result;
  return InBinary(rule->result, function.starts_with("v8::") ? Kind::kV8Internal : Kind::kNode);
}

bool IsBoundary(const ClassifiedFrame& frame) {
  return frame.frame.type == FrameType::kJs || frame.frame.type == FrameType::kWasm;
}

// The native frames between the allocation and the JavaScript that called for it.
absl::Span<const ClassifiedFrame* const> InnermostNativeRun(absl::Span<const ClassifiedFrame* const> stack) {
  size_t length = 0;
  while (length < stack.size() && !IsBoundary(*stack[length])) ++length;
  return stack.first(length);
}

struct OwnerSearch {
  Kind kind = Kind::kNative;
  bool special = false;  // `kind` was decided by a special allocator
  std::optional<size_t> origin;
};

// A function of the array-buffer machinery is plumbing once it is known that the block is a backing store.
bool IsBackingStorePlumbing(const Frame& frame) {
  return Contains(frame.function, "BackingStore") || frame.function.starts_with("v8::internal::Heap::") ||
         frame.function.starts_with("v8::ArrayBuffer::");
}

bool IsSpecial(const FrameClass& frame, Source source) {
  return frame.role == FrameRole::kSpecial || (frame.role == FrameRole::kSpecialMapping && source != Source::kBlock);
}

// In a stripped node: the allocator that it gives to zlib and brotli has no name, but it is the only thing of their
// user's that these libraries call.
bool IsUnnamedAllocator(absl::Span<const ClassifiedFrame* const> run, size_t i) {
  if (!run[i]->frame.function.empty() || run[i]->native.certainty != Certainty::kBinary || i + 1 == run.size())
    return false;
  const ClassifiedFrame& caller = *run[i + 1];
  return caller.frame.type == FrameType::kNative && caller.native.certainty == Certainty::kLibrary &&
         (caller.native.kind == Kind::kZlib || caller.native.kind == Kind::kBrotli);
}

// A static function of a C library that node links says in its name whose it is as little as `add_provider_groups`. The
// libraries call nothing of others that is C and has such a name: it is theirs who call it.
std::optional<Kind> LibraryThatCalls(absl::Span<const ClassifiedFrame* const> run, size_t i) {
  for (; i < run.size() && run[i]->frame.type == FrameType::kNative; ++i) {
    const FrameClass& frame = run[i]->native;
    if (frame.certainty == Certainty::kLibrary) return frame.kind;
    if (frame.kind != Kind::kNode || frame.role != FrameRole::kOwner || run[i]->frame.function.empty() ||
        Contains(run[i]->frame.function, "::"))
      return std::nullopt;
  }
  return std::nullopt;
}

// Threads and main begin in libc, and it calls back into programs (qsort): it does not own what they allocate. What a
// stripped libc calls them is not known.
bool OnlyCalledThem(const ClassifiedFrame& frame) {
  constexpr std::string_view kStarters[] = {"start_thread",      "clone",  "clone3",      "__libc_start_call_main",
                                            "__libc_start_main", "_start", "thread_start"};
  if (frame.native.role != FrameRole::kOwner || frame.native.kind != Kind::kLibc) return false;
  const std::string& function = frame.frame.function;
  return function.empty() || std::find(std::begin(kStarters), std::end(kStarters), function) != std::end(kStarters);
}

OwnerSearch FindOwner(absl::Span<const ClassifiedFrame* const> run, Source source) {
  OwnerSearch found;
  std::optional<Kind> hint;  // of library plumbing: the outermost counts
  for (size_t i = 0; i < run.size(); ++i) {
    if (run[i]->frame.type != FrameType::kNative) continue;
    const FrameClass& frame = run[i]->native;
    if (IsUnnamedAllocator(run, i)) continue;
    if (found.origin.has_value() && found.kind == Kind::kNative && OnlyCalledThem(*run[i])) continue;
    if (IsSpecial(frame, source)) {
      // Wasm memories are reached through the machinery of array buffers: the outer one knows better.
      if (!found.special || frame.kind == Kind::kWasmMemory) found.kind = frame.kind;
      found.special = true;
    } else if (frame.role == FrameRole::kPlumbing) {
      if (frame.certainty == Certainty::kLibrary) hint = frame.kind;
      if (!found.special) found.kind = hint.value_or(frame.kind);
    } else if (!found.special || !IsBackingStorePlumbing(run[i]->frame)) {
      found.origin = i;
      if (!found.special) {
        found.kind = frame.certainty == Certainty::kLibrary
                         ? frame.kind
                         : hint.value_or(LibraryThatCalls(run, i).value_or(frame.kind));
      }
      if (frame.role == FrameRole::kSpecialMapping && !found.special) found.kind = Kind::kV8Internal;
      return found;
    }
    found.origin = i;  // unless somebody further out wanted it
  }
  return found;
}

bool IsV8Function(const ClassifiedFrame& frame) {
  return frame.frame.type == FrameType::kNative &&
         (frame.frame.function.starts_with("v8::") || frame.frame.function.starts_with("cppgc::"));
}

Kind KindOfMapping(absl::Span<const ClassifiedFrame* const> run, const OwnerSearch& owner) {
  if (owner.special) return owner.kind;
  for (const ClassifiedFrame* frame : run) {
    if (IsV8Function(*frame)) return Kind::kV8Heap;
    if (frame->frame.type == FrameType::kNative && frame->native.role == FrameRole::kOwner) break;
  }
  return Kind::kMapping;
}

// V8 maps the range for its code with all rights and at once (512 MiB since node 24), and hands out little of it.
bool IsCage(absl::Span<const ClassifiedFrame* const> run) {
  for (const ClassifiedFrame* frame : run) {
    if (Contains(frame->frame.function, "InitReservation") || Contains(frame->frame.function, "VirtualMemoryCage"))
      return true;
  }
  return false;
}

std::optional<size_t> FindSite(absl::Span<const ClassifiedFrame* const> stack) {
  std::optional<size_t> in_package;
  for (size_t i = 0; i < stack.size(); ++i) {
    const Frame& frame = stack[i]->frame;
    if (!IsBoundary(*stack[i]) || frame.file.empty() || IsNodeInternalFile(frame.file)) continue;
    if (!IsInNodeModules(frame.file)) return i;
    if (!in_package.has_value()) in_package = i;
  }
  return in_package;
}

}  // namespace

ModuleClass ClassifyModule(std::string_view path, bool is_node_executable) {
  if (is_node_executable) return {ModuleRole::kNode, Kind::kNode};
  const std::string_view name = FileName(path);
  if (name.ends_with(".node")) return {ModuleRole::kAddon, Kind::kAddon};
  for (const ModuleRule& rule : kModuleRules) {
    if (name.starts_with(rule.prefix)) return rule.result;
  }
  return {ModuleRole::kOther, Kind::kNative};
}

FrameClass ClassifyFrame(const ModuleClass& module, std::string_view function, std::string_view demangled) {
  const FunctionRule* allocator = FindRule(kAllocatorRules, function);
  const bool is_plumbing = allocator != nullptr || IsImplOfRustLibrary(demangled);
  if (module.role == ModuleRole::kAddon) return ClassifyInAddon(is_plumbing);
  if (is_plumbing) return InBinary(allocator != nullptr ? allocator->result : kPlumbing, module.kind);
  switch (module.role) {
    case ModuleRole::kNode:
      return ClassifyInNode(function);
    case ModuleRole::kRuntime:
    case ModuleRole::kShim:
      return InBinary(kPlumbing, Kind::kNative);
    case ModuleRole::kLibrary:
    case ModuleRole::kLibc:
      return OwnerOf(module.kind);
    default:
      return BinaryOf(Kind::kNative);
  }
}

bool IsHiddenFrame(const ModuleClass& module, std::string_view function) {
  if (module.role == ModuleRole::kShim) return true;
  return module.role == ModuleRole::kNode && function.starts_with("Builtins_");
}

Classification ClassifyStack(absl::Span<const ClassifiedFrame* const> stack, Source source) {
  const absl::Span<const ClassifiedFrame* const> run = InnermostNativeRun(stack);
  const OwnerSearch owner = FindOwner(run, source);
  Classification result;
  result.origin = owner.origin;
  result.site = FindSite(stack);
  switch (source) {
    case Source::kBlock:
      result.kind = owner.kind;
      break;
    case Source::kMapping:
      result.kind = KindOfMapping(run, owner);
      result.is_cage = result.kind == Kind::kV8Heap && IsCage(run);
      break;
    case Source::kThreadStack:
      result.kind = Kind::kThreadStack;
      break;
  }
  return result;
}

bool IsNodeInternalFile(std::string_view file) {
  // evalmachine.<anonymous> and [eval] are the user's own.
  return file.starts_with("node:") || file.starts_with("internal/");
}

bool IsInNodeModules(std::string_view file) { return Contains(file, "/node_modules/"); }

}  // namespace nodeleak::report
