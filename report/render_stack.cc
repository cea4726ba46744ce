#include "report/render_stack.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/classify.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

constexpr size_t kShortestFold = 3;  // fewer lines than this are not worth hiding
constexpr size_t kNativeHead = 4;    // of the native frames next to the allocation
constexpr size_t kMostLines = 24;
constexpr int kPlaceShare = 55;   // percent of the line, at most
constexpr int kNameColumns = 40;  // places begin here, unless the name is longer

enum class FoldClass { kNone, kNodeInternal, kNodeNative, kSystem };

bool IsNodeBinary(const Frame& frame) {
  const std::string module = ModuleText(frame.module);
  return module == "node" || module == "nodejs" || absl::StartsWith(module, "libnode.so");
}

// What the reader can seldom do anything about, once it is further out than the allocation itself.
FoldClass ClassOf(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kJs:
      if (frame.module == kBuiltinModule) return FoldClass::kNone;
      return IsNodeInternalFile(frame.file) ? FoldClass::kNodeInternal : FoldClass::kNone;
    case FrameType::kNative:
      if (IsNodeBinary(frame)) return FoldClass::kNodeNative;
      return ClassifyModule(frame.module, false).role == ModuleRole::kLibc ? FoldClass::kSystem : FoldClass::kNone;
    default:
      return FoldClass::kNone;
  }
}

std::string_view TopFolder(std::string_view file) {
  // "node:internal/streams/readable" -> "node:internal/streams"; "node:fs" stays
  const size_t slash = file.rfind('/');
  return slash == std::string_view::npos ? file : file.substr(0, slash);
}

std::string FoldedText(const std::vector<Frame>& frames, size_t begin, size_t end) {
  bool same_class = true, same_folder = true;
  for (size_t i = begin; i < end; ++i) {
    same_class &= ClassOf(frames[i]) == ClassOf(frames[begin]);
    same_folder &= TopFolder(frames[i].file) == TopFolder(frames[begin].file);
  }
  std::string what = "node's own code";
  if (same_class && ClassOf(frames[begin]) == FoldClass::kNodeInternal) {
    what = same_folder ? Printable(TopFolder(frames[begin].file)) : "node: modules";
  } else if (same_class && ClassOf(frames[begin]) == FoldClass::kSystem) {
    what = "libc";
  }
  return absl::StrCat("… ", end - begin, " frames of ", what, " …");
}

// End of the run of foldable frames that begins at `begin`.
size_t EndOfRun(const std::vector<Frame>& frames, size_t begin) {
  size_t end = begin;
  while (end < frames.size() && ClassOf(frames[end]) != FoldClass::kNone) ++end;
  return end;
}

std::string FrameLine(const Frame& frame, std::string_view directory, int columns) {
  if (frame.type == FrameType::kMarker) return FitEnd(absl::StrCat("<", NameText(frame), ">"), columns);
  const std::string place = PlaceText(frame, directory, columns * kPlaceShare / 100);
  const int name_columns = std::max(8, columns - DisplayWidth(place) - 2);
  if (place.empty()) return FitMiddle(NameText(frame), columns);
  const std::string name = FitMiddle(NameText(frame), name_columns);
  const int padded = std::max(DisplayWidth(name), std::min(name_columns, kNameColumns));
  return FitEnd(absl::StrCat(PadRight(name, padded), "  ", place), columns);
}

}  // namespace

std::string ModuleText(std::string_view module) {
  const size_t slash = module.rfind('/');
  return Printable(slash == std::string_view::npos ? module : module.substr(slash + 1));
}

std::string NameText(const Frame& frame) {
  if (frame.function.empty()) return frame.type == FrameType::kNative ? "?" : "(anonymous)";
  return Printable(frame.function) + (frame.inlined && frame.type == FrameType::kNative ? " [inlined]" : "");
}

std::string PlaceText(const Frame& frame, std::string_view directory, int columns) {
  if (frame.type == FrameType::kJs && frame.module == kBuiltinModule) return "JavaScript builtin";
  if (!frame.file.empty()) return Location(frame.file, frame.line, frame.column, directory, columns);
  if (frame.type == FrameType::kJs) return "(file not known)";
  if (frame.module.empty()) return "";
  if (!frame.function.empty()) return FitMiddle(ModuleText(frame.module), columns);
  return FitMiddle(absl::StrCat(ModuleText(frame.module), absl::StrFormat(" +0x%x", frame.offset)), columns);
}

std::vector<std::string> RenderStackLines(const std::vector<Frame>& frames, std::string_view directory, int columns) {
  std::vector<std::string> lines;
  size_t i = 0;
  // The innermost frames say what the memory is: a few are always shown.
  for (; i < frames.size() && i < kNativeHead && frames[i].type == FrameType::kNative; ++i) {
    lines.push_back(FrameLine(frames[i], directory, columns));
  }
  while (i < frames.size() && lines.size() < kMostLines) {
    const size_t end = EndOfRun(frames, i);
    if (end - i >= kShortestFold) {
      lines.push_back(FitEnd(FoldedText(frames, i, end), columns));
      i = end;
    } else {
      lines.push_back(FrameLine(frames[i++], directory, columns));
    }
  }
  if (i < frames.size()) lines.push_back(absl::StrCat("… ", frames.size() - i, " more frames …"));
  return lines;
}

}  // namespace nodeleak::report
