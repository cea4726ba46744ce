#include "report/render_waterfall.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/waterfall.h"

namespace nodeleak::report {
namespace {

constexpr uint64_t kSmallShare = 50;  // below a fiftieth of the RSS a line is one of "others"
constexpr size_t kLinesOfPeak = 4;
constexpr uint64_t kWorthPeak = 10;  // percent above the picture shown

std::string MomentText(const Memory& memory) {
  if (memory.at == "end") return "at the end";
  if (memory.at == "now") return "now";
  if (memory.at == "peak") return absl::StrCat("on the way to its peak, after ", FormatSeconds(memory.t_seconds));
  if (memory.at == "rss-limit") return absl::StrCat("at the RSS asked for, after ", FormatSeconds(memory.t_seconds));
  return "";
}

std::string LimitText(const Memory& memory) {
  if (memory.limit_bytes == 0) return "";
  return absl::StrCat(", limit ", FormatBytes(memory.limit_bytes), " (", memory.limit_throttles ? "memory.high, " : "",
                      FormatShare(memory.limit_used_bytes, memory.limit_bytes), " used)");
}

bool IsBesides(const MemoryLine& line) { return line.touched_bytes.value_or(0) == 0 && line.name != kUnexplainedLine; }

void WriteLine(const MemoryLine& line, TextCanvas* out) {
  const uint64_t touched = line.touched_bytes.value_or(line.bytes);
  constexpr int kNameColumns = 22;
  std::vector<std::string> details;
  if (line.bytes / 10 > touched / 9) details.push_back(absl::StrCat("of ", FormatBytes(line.bytes)));
  if (!line.detail.empty()) details.push_back(Printable(line.detail));
  const std::string begin =
      absl::StrCat(PadLeft(FormatBytes(touched), 12), "  ", PadRight(Printable(line.name), kNameColumns));
  out->Line(details.empty() ? absl::StrCat(PadLeft(FormatBytes(touched), 12), "  ", Printable(line.name))
                            : begin + FitEnd(absl::StrCat("  ", absl::StrJoin(details, ", ")),
                                             out->columns() - DisplayWidth(begin)));
}

void WriteBesides(const Memory& memory, TextCanvas* out) {
  std::vector<std::string> parts;
  for (const MemoryLine& line : memory.lines) {
    if (IsBesides(line) && line.bytes != 0)
      parts.push_back(absl::StrCat(Printable(line.name), " ", FormatBytes(line.bytes)));
  }
  if (!parts.empty()) out->Wrapped("  besides: ", absl::StrJoin(parts, ", "));
}

// "At its peak..." only when that was clearly more than what the table shows.
void WritePeak(const Report& report, TextCanvas* out) {
  for (const Memory& memory : report.other_memory) {
    if (memory.at != "peak" || memory.rss_bytes * 100 < report.memory.rss_bytes * (100 + kWorthPeak)) continue;
    std::vector<std::string> parts;
    for (const MemoryLine& line : memory.lines) {
      if (parts.size() < kLinesOfPeak && !IsBesides(line))
        parts.push_back(absl::StrCat(Printable(line.name), " ", FormatBytes(line.touched_bytes.value_or(0))));
    }
    out->Wrapped("  ", absl::StrCat("near its peak, after ", FormatSeconds(memory.t_seconds), ", it was ",
                                    FormatBytes(memory.rss_bytes), ": ", absl::StrJoin(parts, ", ")));
  }
}

void WriteLineJson(const MemoryLine& line, JsonWriter* json) {
  json->BeginCompactObject();
  json->Field("name", line.name);
  json->Field("bytes", line.bytes);
  json->Key("touchedBytes");
  line.touched_bytes.has_value() ? json->Integer(*line.touched_bytes) : json->Null();
  json->Field("detail", line.detail);
  if (!line.parts.empty()) {
    json->Key("parts");
    json->BeginArray();
    for (const MemoryLine& part : line.parts) WriteLineJson(part, json);
    json->EndArray();
  }
  json->EndObject();
}

void WriteStrings(std::string_view key, const std::vector<std::string>& strings, JsonWriter* json) {
  json->Key(key);
  json->BeginArray();
  for (const std::string& text : strings) json->String(text);
  json->EndArray();
}

void WriteMemoryFields(const Memory& memory, JsonWriter* json) {
  json->Field("at", memory.at);
  json->SecondsField("t", memory.t_seconds);
  json->Field("rssBytes", memory.rss_bytes);
  json->Key("limitBytes");
  memory.limit_bytes != 0 ? json->Integer(memory.limit_bytes) : json->Null();
  json->Key("limitUsedBytes");
  memory.limit_bytes != 0 ? json->Integer(memory.limit_used_bytes) : json->Null();
  json->Key("limitKind");
  memory.limit_bytes != 0 ? json->String(memory.limit_throttles ? "throttles" : "kills") : json->Null();
  json->Key("lines");
  json->BeginArray();
  for (const MemoryLine& line : memory.lines) WriteLineJson(line, json);
  json->EndArray();
  WriteStrings("advice", memory.advice, json);
  WriteStrings("notes", memory.notes, json);
}

enum class Detail : uint8_t { kWhatMatters, kAll };

void WriteParts(const MemoryLine& line, TextCanvas* out) {
  constexpr size_t kMostParts = 8;
  for (size_t i = 0; i < std::min(line.parts.size(), kMostParts); ++i) {
    MemoryLine part = line.parts[i];
    part.name = absl::StrCat("  ", part.name);
    WriteLine(part, out);
  }
  if (line.parts.size() > kMostParts)
    out->Line(absl::StrCat(std::string(16, ' '), "… and ", line.parts.size() - kMostParts, " more"));
}

void WriteTable(const Memory& memory, Detail detail, TextCanvas* out) {
  MemoryLine others = {"others", 0, 0, ""};
  for (const MemoryLine& line : memory.lines) {
    if (IsBesides(line)) continue;
    const uint64_t touched = line.touched_bytes.value_or(0);
    if (detail == Detail::kAll || touched >= memory.rss_bytes / kSmallShare || line.name == kUnexplainedLine) {
      if (line.name == kUnexplainedLine && others.bytes != 0) WriteLine(others, out);
      WriteLine(line, out);
      if (detail == Detail::kAll) WriteParts(line, out);
    } else {
      others.bytes += line.bytes;
      others.touched_bytes = *others.touched_bytes + touched;
    }
  }
  WriteBesides(memory, out);
  for (const std::string& advice : memory.advice) out->Wrapped("  > ", Printable(advice));
  for (const std::string& note : memory.notes) out->Wrapped("  ! ", Printable(note));
}

void WriteHead(const Memory& memory, TextCanvas* out) {
  out->Line(absl::StrCat(out->Bold("Resident memory: "), FormatBytes(memory.rss_bytes), " ", MomentText(memory),
                         LimitText(memory)));
}

}  // namespace

void WriteMemoryPicture(const Memory& memory, TextCanvas* out) {
  WriteHead(memory, out);
  WriteTable(memory, Detail::kAll, out);
}

void WriteWaterfall(const Report& report, TextCanvas* out) {
  const Memory& memory = report.memory;
  if (memory.at == "estimate" || memory.lines.empty()) return;
  out->Line("");
  WriteHead(memory, out);
  WriteTable(memory, Detail::kWhatMatters, out);
  WritePeak(report, out);
}

void WriteMemory(const Report& report, JsonWriter* json) {
  json->Key("memory");
  json->BeginObject();
  WriteMemoryFields(report.memory, json);
  json->Key("others");
  json->BeginArray();
  for (const Memory& memory : report.other_memory) {
    json->BeginObject();
    WriteMemoryFields(memory, json);
    json->EndObject();
  }
  json->EndArray();
  json->EndObject();
}

}  // namespace nodeleak::report
