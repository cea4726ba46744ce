#include "report/remarks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kLargeStore = 64 * 1024;

// Whether a small view keeps each of them cannot be told from the blocks: that it is possible is said.
std::string LargeStores(const Group& group) {
  const uint64_t mean = group.live_bytes / group.live_blocks;
  if (mean < kLargeStore || group.survived_gcs.median == 0) return "";
  return absl::StrCat("large backing stores of ", FormatBytes(mean), " on average, which survived ",
                      group.survived_gcs.median, " or more full GCs: one small view or slice keeps all of one alive");
}

bool IsPoolSlab(const StackView& stack) {
  return std::any_of(stack.begin(), stack.end(), [](const ClassifiedFrame* frame) {
    return frame->frame.type == FrameType::kJs && frame->frame.function == "createPool" &&
           frame->frame.file.ends_with("buffer");
  });
}

}  // namespace

std::vector<std::string> RemarksOn(const Group& group, const StackView& heaviest) {
  std::vector<std::string> remarks;
  if (group.kind != Kind::kArrayBuffer || group.live_blocks == 0) return remarks;
  if (IsPoolSlab(heaviest)) {
    remarks.emplace_back(
        "slabs of the pool that small Buffers share: this line asked for new ones, the Buffers that keep them may come "
        "from other lines");
  } else if (std::string sentence = LargeStores(group); !sentence.empty()) {
    remarks.push_back(std::move(sentence));
  }
  return remarks;
}

}  // namespace nodeleak::report
