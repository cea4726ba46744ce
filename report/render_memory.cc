// What `nodeleak rss` prints: every line of every picture, with its parts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "report/process_text.h"
#include "report/render_waterfall.h"
#include "report/report.h"

namespace nodeleak::report {

std::string RenderMemoryText(const Report& report, const TextOptions& options) {
  TextCanvas out(options.columns, options.color);
  WriteTitle("", report.process, &out);
  WriteMemoryPicture(report.memory, &out);
  for (const Memory& memory : report.other_memory) {
    out.Line("");
    WriteMemoryPicture(memory, &out);
  }
  return out.Take();
}

std::string RenderMemoryJson(const Report& report) {
  JsonWriter json;
  json.BeginObject();
  json.Field("schema", "nodeleak-memory");
  json.Field("version", uint64_t{1});
  json.Field("pid", uint64_t{report.process.pid});
  json.Key("command");
  json.BeginArray();
  for (const std::string& argument : report.process.command) json.String(argument);
  json.EndArray();
  WriteMemory(report, &json);
  json.EndObject();
  return json.Take() + "\n";
}

}  // namespace nodeleak::report
