// Outside node. The part of the text report that tells the groups one by one.
#pragma once

#include <optional>
#include <string>

#include "report/reading_order.h"
#include "report/report.h"
#include "report/text_canvas.h"

namespace nodeleak::report {

// What a group is called where there is one line for it.
std::string GroupLabel(const Group& group, const std::string& directory, int columns);

// The columns of a table of groups that come before the label, "  1.2 MiB      200  array-buffer".
std::string GroupNumbers(uint64_t bytes, uint64_t blocks, Kind kind, std::optional<uint64_t> error = {});

void WriteGroups(const Report& report, const ReadingPlan& plan, const TextOptions& options, TextCanvas* out);

}  // namespace nodeleak::report
