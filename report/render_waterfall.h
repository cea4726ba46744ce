// Outside node. The waterfall as text and as JSON.
#pragma once

#include <string>

#include "report/json_writer.h"
#include "report/model.h"
#include "report/text_canvas.h"

namespace nodeleak::report {

// The part of a text report: the lines that matter, and the peak in a sentence.
void WriteWaterfall(const Report& report, TextCanvas* out);

// All lines of one picture, for `nodeleak rss`.
void WriteMemoryTable(const Memory& memory, bool all, TextCanvas* out);

void WriteMemory(const Report& report, JsonWriter* json);  // key "memory"

}  // namespace nodeleak::report
