#include "cli/file_names.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nodeleak::cli {
namespace {

constexpr absl::string_view kDefaultOutput = "nodeleak.%n.%p.rec";

}  // namespace

size_t ExtensionStart(absl::string_view path) {
  constexpr absl::string_view kTwoPart = ".pb.gz";
  if (absl::EndsWith(path, kTwoPart)) return path.size() - kTwoPart.size();
  size_t name = path.rfind('/');
  name = name == absl::string_view::npos ? 0 : name + 1;
  size_t dot = path.rfind('.');
  return dot == absl::string_view::npos || dot <= name ? path.size() : dot;
}

std::string ExpandFileName(absl::string_view file_template, const ProcessName& process, bool several) {
  std::string expanded;
  bool names_pid = false;
  for (size_t i = 0; i < file_template.size(); ++i) {
    char next = file_template[i] == '%' && i + 1 < file_template.size() ? file_template[i + 1] : '\0';
    if (next == 'p') {
      absl::StrAppend(&expanded, process.pid);
      names_pid = true;
    } else if (next == 'n') {
      absl::StrAppend(&expanded, process.program);
    } else if (next == '%') {
      expanded.push_back('%');
    } else {
      expanded.push_back(file_template[i]);
      continue;
    }
    ++i;  // the letter after the percent sign
  }
  if (several && !names_pid && !process.is_root_command)
    expanded.insert(ExtensionStart(expanded), absl::StrCat(".", process.pid));
  return expanded;
}

std::string RecordingTemplate(absl::string_view output, absl::string_view current_directory) {
  if (output.empty()) output = kDefaultOutput;
  if (absl::StartsWith(output, "/")) return std::string(output);
  return absl::StrCat(current_directory, absl::EndsWith(current_directory, "/") ? "" : "/", output);
}

}  // namespace nodeleak::cli
