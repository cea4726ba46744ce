// Outside. Where a recording may be written.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace nodeleak::recording {

// Ok when there is nothing at `path`, or a recording, which may be replaced. Otherwise a clause that names the path.
absl::Status CheckReplaceable(const std::string& path);

}  // namespace nodeleak::recording
