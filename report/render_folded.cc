#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "report/absl_view.h"
#include "report/render_stack.h"
#include "report/report.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

// ";" separates frames and the last blank separates the number.
std::string FoldedName(const Frame& frame) {
  std::string name = NameText(frame);
  if (frame.type == FrameType::kJs && !frame.file.empty()) {
    const size_t slash = frame.file.rfind('/');
    absl::StrAppend(&name, " ", slash == std::string::npos ? frame.file : frame.file.substr(slash + 1), ":",
                    frame.line);
  } else if (frame.type == FrameType::kNative && frame.function.empty()) {
    name = PlaceText(frame, "", 200);
  }
  return absl::StrReplaceAll(Printable(name), {{";", ","}});
}

std::string FoldedStack(const Group& group, const StackUse& stack) {
  std::vector<std::string> names;
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) names.push_back(FoldedName(*frame));
  names.push_back(absl::StrCat("[", KindName(group.kind), "]"));
  return absl::StrJoin(names, ";");
}

absl::Status NotAvailable(std::string_view format) {
  return absl::UnimplementedError(
      absl::StrCat("the format ", View(format), " is not available yet (there are text, json and folded)"));
}

}  // namespace

std::string RenderFolded(const Report& report) {
  std::map<std::string, uint64_t> bytes_by_stack;  // sorted, and equal lines added up
  for (const Group& group : report.groups) {
    for (const StackUse& stack : group.stacks) {
      if (stack.live_bytes != 0) bytes_by_stack[FoldedStack(group, stack)] += stack.live_bytes;
    }
  }
  std::string text;
  for (const auto& [stack, bytes] : bytes_by_stack) absl::StrAppend(&text, stack, " ", bytes, "\n");
  return text;
}

absl::StatusOr<std::string> Render(const Report& report, std::string_view format, const TextOptions& text_options) {
  if (format == "text" || format == "txt") return RenderText(report, text_options);
  if (format == "json") return RenderJson(report);
  if (format == "folded") return RenderFolded(report);
  if (format == "html" || format == "pprof" || format == "pb.gz" || format == "heapprofile")
    return NotAvailable(format);
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write a report as \"", View(format), "\": there are text, json and folded"));
}

}  // namespace nodeleak::report
