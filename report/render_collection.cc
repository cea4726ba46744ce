// What `nodeleak gc` prints: how each isolate answered, what went, what is left.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "report/json_writer.h"
#include "report/process_text.h"
#include "report/render_groups.h"
#include "report/report.h"
#include "report/text_canvas.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

using recording::GcAnswerState;

constexpr int kThreadColumns = 12, kPartColumns = 7;

struct AnswerWord {
  GcAnswerState state;
  const char* word;      // of the JSON
  const char* sentence;  // of the text, behind the pauses
};
constexpr AnswerWord kAnswerWords[] = {
    {GcAnswerState::kAsked, "collecting", "is still collecting after a minute"},
    {GcAnswerState::kDone, "done", ""},
    {GcAnswerState::kOnce, "once",
     "its event loop did not turn within 1 s (JavaScript that never yields, or a synchronous call): finalizers have "
     "not run"},
    {GcAnswerState::kNotReached, "not-reached",
     "has not reached a safe point for 3 s: it runs native code or is blocked"},
    {GcAnswerState::kGone, "ended", "ended meanwhile"},
};
const AnswerWord& WordOf(GcAnswerState state) {
  for (const AnswerWord& row : kAnswerWords)
    if (row.state == state) return row;
  return kAnswerWords[0];
}

std::string Milliseconds(double ms) { return absl::StrFormat("%.*f", ms < 10 ? 1 : 0, ms); }

std::string PausesText(const IsolateAnswer& answer) {
  if (answer.first_pause_ms == 0) return "";
  std::string text = absl::StrCat("collected ", answer.by_interrupt ? "in the middle of JavaScript " : "", "after ",
                                  Milliseconds(answer.waited_ms), " ms, paused ", Milliseconds(answer.first_pause_ms));
  if (answer.second_pause_ms == 0) return absl::StrCat(text, " ms");
  return absl::StrCat(text, " and ", Milliseconds(answer.second_pause_ms), " ms, ", Plural(answer.turns, "turn"),
                      " of the event loop between");
}

void WriteAnswers(const Report& report, TextCanvas* out) {
  out->Line("");
  for (const IsolateAnswer& answer : report.answers) {
    std::vector<std::string> parts;
    for (std::string part : {PausesText(answer), std::string(WordOf(answer.state).sentence)})
      if (!part.empty()) parts.push_back(std::move(part));
    out->Wrapped("  " + PadRight(Printable(answer.thread), kThreadColumns), absl::StrJoin(parts, "; "));
  }
  // An isolate from before is met where its loop sleeps, when its loop turns, or when it collects garbage by itself.
  if (report.process.is_attached)
    out->Wrapped(
        "  ",
        "A worker that has been in native code ever since nodeleak attached (or in JavaScript without a JIT) is "
        "not known yet, "
        "and was not asked.");
}

// One part of what went of one group.
struct FreedRow {
  const Group* group = nullptr;
  const char* part = "";
  uint64_t bytes = 0, blocks = 0;
};
std::vector<FreedRow> FreedRows(const Report& report) {
  std::vector<FreedRow> rows;
  for (const Group& group : report.groups) {
    if (IsBackground(group.kind)) continue;
    if (group.garbage_bytes != 0) rows.push_back({&group, "garbage", group.garbage_bytes, group.garbage_blocks});
    if (group.pending_bytes != 0) rows.push_back({&group, "pending", group.pending_bytes, group.pending_blocks});
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const FreedRow& left, const FreedRow& right) { return left.bytes > right.bytes; });
  return rows;
}

size_t RowsToShow(size_t count, uint64_t top) { return top == 0 ? count : std::min<size_t>(count, top); }

void WriteFreed(const Report& report, uint64_t top, TextCanvas* out) {
  const uint64_t garbage = report.garbage_bytes.value_or(0);
  out->Line("");
  out->Line(absl::StrCat(out->Bold("Freed: "), FormatBytes(garbage + report.pending_bytes)));
  out->Line(absl::StrCat("  ", FormatBytes(garbage), " was garbage: the collection itself freed it"));
  out->Wrapped("  ", absl::StrCat(FormatBytes(report.pending_bytes),
                                  " was pending: finalizers freed it on the turns of the event loop that followed"));
  const std::vector<FreedRow> rows = FreedRows(report);
  const size_t shown = RowsToShow(rows.size(), top);
  for (size_t i = 0; i < shown; ++i) {
    const FreedRow& row = rows[i];
    const std::string before =
        absl::StrCat(GroupNumbers(row.bytes, row.blocks, row.group->kind), PadRight(row.part, kPartColumns), "  ");
    out->Line(before + GroupLabel(*row.group, report.process.working_directory, out->columns() - DisplayWidth(before)));
  }
  if (shown < rows.size()) out->Line(absl::StrCat("  … and ", rows.size() - shown, " smaller (--top=0 shows all)"));
}

void WriteLeft(const Report& report, uint64_t top, TextCanvas* out) {
  out->Line("");
  out->Line(absl::StrCat(out->Bold("Still outstanding outside the JavaScript heap: "),
                         FormatBytes(report.totals.live_bytes), " in ", Plural(report.totals.live_blocks, "block")));
  std::vector<const Group*> left;
  for (const Group& group : report.groups)
    if (!IsBackground(group.kind) && group.live_bytes != 0) left.push_back(&group);
  const size_t shown = RowsToShow(left.size(), top);
  for (size_t i = 0; i < shown; ++i) {
    const std::string before = GroupNumbers(left[i]->live_bytes, left[i]->live_blocks, left[i]->kind);
    out->Line(before + GroupLabel(*left[i], report.process.working_directory, out->columns() - DisplayWidth(before)));
  }
  if (shown < left.size()) out->Line(absl::StrCat("  … and ", left.size() - shown, " smaller (--top=0 shows all)"));
}

void WriteSiteFields(const Group& group, JsonWriter* json) {
  json->Field("kind", KindName(group.kind));
  json->Field("function", group.site.has_value() ? group.site->function : "");
  json->Field("file", group.site.has_value() ? group.site->file : "");
  json->Field("line", uint64_t{group.site.has_value() ? group.site->line : 0});
  json->Field("origin", group.origin.has_value() ? group.origin->function : "");
}

}  // namespace

std::string RenderCollection(const Report& report, const TextOptions& options) {
  TextCanvas out(options.columns, options.color);
  WriteTitle("nodeleak: full GC of ", report.process, &out);
  WriteAnswers(report, &out);
  WriteFreed(report, options.top, &out);
  WriteLeft(report, options.top, &out);
  return out.Take();
}

std::string RenderCollectionJson(const Report& report) {
  JsonWriter json;
  json.BeginObject();
  json.Field("schema", "nodeleak-gc");
  json.Field("version", uint64_t{1});
  json.Field("pid", uint64_t{report.process.pid});
  json.Key("answers");
  json.BeginArray();
  for (const IsolateAnswer& answer : report.answers) {
    json.BeginCompactObject();
    json.Field("thread", answer.thread);
    json.Field("state", WordOf(answer.state).word);
    json.Field("turns", uint64_t{answer.turns});
    json.BoolField("byInterrupt", answer.by_interrupt);
    json.SecondsField("waitedMs", answer.waited_ms);
    json.SecondsField("firstPauseMs", answer.first_pause_ms);
    json.SecondsField("secondPauseMs", answer.second_pause_ms);
    json.EndObject();
  }
  json.EndArray();
  json.BoolField("sleepingWorkersUnknown", report.process.is_attached);
  json.Field("garbageBytes", report.garbage_bytes.value_or(0));
  json.Field("pendingBytes", report.pending_bytes);
  json.Field("liveBytes", report.totals.live_bytes);
  json.Field("liveBlocks", report.totals.live_blocks);
  json.Key("sites");
  json.BeginArray();
  for (const Group& group : report.groups) {
    if (IsBackground(group.kind)) continue;
    json.BeginCompactObject();
    WriteSiteFields(group, &json);
    json.Field("garbageBytes", group.garbage_bytes);
    json.Field("garbageBlocks", group.garbage_blocks);
    json.Field("pendingBytes", group.pending_bytes);
    json.Field("pendingBlocks", group.pending_blocks);
    json.Field("liveBytes", group.live_bytes);
    json.Field("liveBlocks", group.live_blocks);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.Take() + "\n";
}

}  // namespace nodeleak::report
