#include "report/frames.h"

#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "report/absl_view.h"
#include "symbolizer/names.h"
#include "symbolizer/package.h"

namespace nodeleak::report {
namespace {

using recording::MarkerId;

// What a marker says to a person, by MarkerId.
constexpr const char* kMarkerSentences[] = {
    "a frame that could not be read from the recording",
    "frames left out: the stack is deeper than the limit",
    "the stack could not be followed further: no unwind rule here",
    "code that belongs to no known file",
    "JavaScript frames that cannot be read in this version of V8",
    "a JavaScript function whose name could not be read",
    "the stack could not be stored: the recording was full",
    "the stack was not taken here (early start, or no safe moment)",
};
static_assert(std::size(kMarkerSentences) == static_cast<size_t>(MarkerId::kCount));

Frame MarkerFrame(uint64_t id) {
  Frame frame;
  frame.type = FrameType::kMarker;
  frame.function = kMarkerSentences[id < std::size(kMarkerSentences) ? id : 0];
  return frame;
}

ClassifiedFrame Classified(Frame frame, const ModuleClass& module, std::string_view demangled = {}) {
  ClassifiedFrame result;
  if (frame.type == FrameType::kNative) {
    result.native = ClassifyFrame(module, frame.function, demangled);
    result.hidden = IsHiddenFrame(module, frame.function);
  }
  result.frame = std::move(frame);
  return result;
}

symbolizer::ModuleRef ReferenceTo(const recording::ModuleInfo& module, const std::string& root) {
  symbolizer::ModuleRef reference;
  reference.path = std::string(module.path);
  reference.build_id.assign(module.build_id.begin(), module.build_id.end());
  reference.root = root;
  return reference;
}

bool MayHavePackage(std::string_view path) { return IsInNodeModules(path) || path.ends_with(".node"); }

}  // namespace

NativeNames NamesFrom(symbolizer::Symbolizer* symbolizer) {
  NativeNames names;
  names.symbolize = [symbolizer](const symbolizer::ModuleRef& module, absl::Span<const uint64_t> addresses) {
    return symbolizer->SymbolizeBatch(module, addresses);
  };
  names.describe = [symbolizer](const symbolizer::ModuleRef& module) { return symbolizer->Describe(module); };
  return names;
}

const std::string& Packages::Of(std::string_view path) {
  const auto [entry, is_new] = label_of_.try_emplace(std::string(path));
  if (is_new && MayHavePackage(path)) {
    if (const auto package = symbolizer::FindPackage(path, root_)) entry->second = symbolizer::PackageLabel(*package);
  }
  return entry->second;
}

FrameTable::FrameTable(const recording::Recording& recording, const NativeNames& names, const std::string& root,
                       const std::vector<bool>* wanted)
    : recording_(recording), frames_(recording.frames.size()) {
  for (size_t i = 0; i < frames_.size(); ++i) {
    const recording::Frame& frame = recording.frames[i];
    if (static_cast<recording::FrameType>(frame.type) == recording::FrameType::kNative) continue;
    frames_[i].push_back(Classified(ResolveScript(frame), {}));
  }
  ResolveNative(names, root, wanted);
  NumberLooks();
}

// Return addresses within one line, and whether V8 had inlined a function, make frames of the recording differ.
void FrameTable::NumberLooks() {
  constexpr char kSeparator[] = "\x1f";
  absl::flat_hash_map<std::string, uint32_t> numbers;
  for (std::vector<ClassifiedFrame>& frames : frames_) {
    for (ClassifiedFrame& frame : frames) {
      const Frame& shown = frame.frame;
      const bool offset_shows = shown.function.empty();
      const std::string look =
          absl::StrCat(FrameTypeName(shown.type), kSeparator, shown.function, kSeparator, shown.file, kSeparator,
                       shown.line, kSeparator, shown.column, kSeparator, shown.module, kSeparator,
                       offset_shows ? shown.offset : 0, kSeparator, shown.type == FrameType::kNative && shown.inlined);
      frame.look = numbers.try_emplace(look, static_cast<uint32_t>(numbers.size())).first->second;
    }
  }
}

Frame FrameTable::ResolveScript(const recording::Frame& source) const {
  const auto type = static_cast<recording::FrameType>(source.type);
  if (type == recording::FrameType::kMarker) return MarkerFrame(source.value);
  if (source.module_or_function >= recording_.js_functions.size()) {
    return MarkerFrame(static_cast<uint64_t>(MarkerId::kJsFunctionUnknown));
  }
  const recording::JsFunctionInfo& function = recording_.js_functions[source.module_or_function];
  Frame frame;
  frame.type = type == recording::FrameType::kWasm ? FrameType::kWasm : FrameType::kJs;
  frame.function = function.name.empty() ? "(anonymous)" : std::string(function.name);
  frame.inlined = source.inlined != 0;
  if (type == recording::FrameType::kJsNative) {
    frame.module = kBuiltinModule;
    return frame;
  }
  frame.file = std::string(function.file);
  if (!function.where.empty()) frame.module = absl::StrCat("eval at ", function.where);
  if (type == recording::FrameType::kWasm) {
    // As V8's CallSites have it: the module is one line.
    frame.offset = source.value;
    if (source.value != 0) {
      frame.line = 1;
      frame.column = static_cast<uint32_t>(source.value) + 1;
    }
  } else {
    frame.line = static_cast<uint32_t>(source.value >> 32);
    frame.column = static_cast<uint32_t>(source.value);
  }
  return frame;
}

Frame FrameTable::UnnamedNative(const recording::Frame& source) const {
  Frame frame;
  frame.type = FrameType::kNative;
  frame.offset = source.value;
  if (source.module_or_function < recording_.modules.size()) {
    frame.module = std::string(recording_.modules[source.module_or_function].path);
  }
  return frame;
}

void FrameTable::ResolveNative(const NativeNames& names, const std::string& root, const std::vector<bool>* wanted) {
  std::map<uint32_t, std::vector<uint32_t>> frames_of_module;
  for (uint32_t i = 0; i < frames_.size(); ++i) {
    if (wanted != nullptr && !(*wanted)[i]) continue;
    const recording::Frame& frame = recording_.frames[i];
    if (static_cast<recording::FrameType>(frame.type) == recording::FrameType::kNative) {
      frames_of_module[frame.module_or_function].push_back(i);
    }
  }
  for (const auto& [module, frames] : frames_of_module) {
    if (module < recording_.modules.size()) {
      NameModule(module, frames, names, root);
    } else {
      for (uint32_t frame : frames) frames_[frame].push_back(Classified(UnnamedNative(recording_.frames[frame]), {}));
    }
  }
}

void FrameTable::NameModule(uint32_t index, const std::vector<uint32_t>& frames, const NativeNames& names,
                            const std::string& root) {
  const recording::ModuleInfo& module = recording_.modules[index];
  const ModuleClass module_class =
      ClassifyModule(StdView(module.path), module.is_executable && recording_.process.IsNode());
  const symbolizer::ModuleRef reference = ReferenceTo(module, root);
  std::vector<uint64_t> addresses;
  addresses.reserve(frames.size());
  for (uint32_t frame : frames) addresses.push_back(recording_.frames[frame].value);
  const auto answers = names.symbolize(reference, addresses);
  for (size_t i = 0; i < frames.size(); ++i) {
    if (i < answers.size() && answers[i].ok() && !answers[i]->empty()) {
      SetNative(frames[i], module_class, *answers[i]);
    } else {
      frames_[frames[i]].push_back(Classified(UnnamedNative(recording_.frames[frames[i]]), module_class));
    }
  }
  const symbolizer::ModuleInfo info = names.describe(reference);
  // Libraries of the system are always stripped, and their exported names are enough.
  const bool matters = info.state == symbolizer::ModuleState::kRefused || module_class.role == ModuleRole::kNode ||
                       module_class.role == ModuleRole::kAddon || module_class.role == ModuleRole::kOther;
  const bool is_file = !absl::StartsWith(reference.path, "[");  // "[vdso]": the kernel's own
  if (!matters || !is_file || module_class.role == ModuleRole::kShim || info.why.empty()) return;
  // Said of this file anyway.
  const std::string file = absl::StrCat(": ", reference.path);
  unnamed_modules_.try_emplace(reference.path, absl::StrReplaceAll(info.why, {{file, ""}}));
}

void FrameTable::SetNative(uint32_t index, const ModuleClass& module,
                           const std::vector<symbolizer::SymbolFrame>& symbols) {
  for (const symbolizer::SymbolFrame& symbol : symbols) {
    Frame frame = UnnamedNative(recording_.frames[index]);
    frame.function = symbolizer::ShortFunctionName(symbol.function);
    frame.file = symbol.file;
    frame.line = symbol.line;
    frame.column = symbol.column;
    frame.inlined = symbol.inlined;
    frames_[index].push_back(Classified(std::move(frame), module, symbol.function));
  }
}

StackView FrameTable::View(uint32_t stack) const {
  StackView view;
  for (uint32_t index : recording_.FramesOfStack(stack)) {
    for (const ClassifiedFrame& frame : frames_[index]) {
      if (!frame.hidden) view.push_back(&frame);
    }
  }
  return view;
}

}  // namespace nodeleak::report
