// Outside node. The waterfall as text and as JSON.
#pragma once

#include <string>

#include "report/json_writer.h"
#include "report/model.h"
#include "report/text_canvas.h"

namespace nodeleak::report {

// The part of a text report: the lines that matter, and the peak in a sentence.
void WriteWaterfall(const Report& report, TextCanvas* out);

// All of one picture, with the parts of its lines: for `nodeleak rss`.
void WriteMemoryPicture(const Memory& memory, TextCanvas* out);

void WriteMemory(const Report& report, JsonWriter* json);  // key "memory"

}  // namespace nodeleak::report
