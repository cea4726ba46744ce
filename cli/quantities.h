// Outside. Sizes and durations as people write them.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nodeleak::cli {

// "4096", "64KiB", "1.5 MB", "2G": bytes. KB is 1,000, KiB and a lone K are 1,024.
absl::StatusOr<uint64_t> ParseSize(absl::string_view text);

// "250ms", "60s", "2m", "1h"; a bare number is seconds. Milliseconds.
absl::StatusOr<uint64_t> ParseDuration(absl::string_view text);

}  // namespace nodeleak::cli
