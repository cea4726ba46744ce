// Outside. The names of recordings and reports.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace nodeleak::cli {

struct ProcessName {
  uint32_t pid = 0;
  std::string program;           // of the executable, without its folder
  bool is_root_command = false;  // what the user gave
};

// %p is the pid, %n the program, %% a percent sign. `several`: there is more than one recorded process, so without %p
// the pid goes in before the extension for all but the command itself.
std::string ExpandFileName(absl::string_view file_template, const ProcessName& process, bool several);

// Where the extension begins: "out.json" 3, "leaks.pb.gz" 5, "out" 3.
size_t ExtensionStart(absl::string_view path);

// --output as the shim wants it: absolute. Empty: the default name in the current directory.
std::string RecordingTemplate(absl::string_view output, absl::string_view current_directory);

}  // namespace nodeleak::cli
