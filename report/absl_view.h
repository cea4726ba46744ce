// Outside node. Debian 12's Abseil was built as C++14: its string_view is a type of its own, not std::string_view.
#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace nodeleak::report {

inline absl::string_view View(std::string_view text) { return absl::string_view(text.data(), text.size()); }

inline std::string_view StdView(absl::string_view text) { return std::string_view(text.data(), text.size()); }

}  // namespace nodeleak::report
