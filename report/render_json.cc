// The JSON contract, version 1. Units: bytes, seconds (three decimals); "startedAt" is ISO 8601 in UTC; what is not
// known is null, except lines and columns, where it is 0.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "report/json_writer.h"
#include "report/process_text.h"
#include "report/render_waterfall.h"
#include "report/report.h"

namespace nodeleak::report {
namespace {

std::string Timestamp(uint64_t unix_ns) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixNanos(static_cast<int64_t>(unix_ns)),
                          absl::UTCTimeZone());
}

void WriteProcess(const ProcessInfo& process, JsonWriter* json) {
  json->Key("process");
  json->BeginObject();
  json->Field("pid", uint64_t{process.pid});
  json->Field("ppid", uint64_t{process.ppid});
  json->Key("command");
  json->BeginArray();
  for (const std::string& argument : process.command) json->String(argument);
  json->EndArray();
  json->Field("executable", process.executable);
  json->Field("node", process.node_version);
  json->Field("v8", process.v8_version);
  json->Field("startedAt", Timestamp(process.started_at_unix_ns));
  json->Key("watchedSince");
  process.is_attached ? json->String(Timestamp(process.started_at_unix_ns)) : json->Null();
  json->SecondsField("durationSeconds", process.duration_seconds);
  json->Field("ended", EndingName(process.ending));
  json->Key("exitCode");
  process.exit_code.has_value() ? json->Signed(*process.exit_code) : json->Null();
  json->Key("signal");
  process.signal.has_value() ? json->String(SignalName(*process.signal)) : json->Null();
  json->EndObject();
}

void WriteCapabilities(const std::vector<Capability>& capabilities, JsonWriter* json) {
  json->Key("capabilities");
  json->BeginArray();
  for (const Capability& capability : capabilities) {
    json->BeginCompactObject();
    json->Field("name", capability.name);
    json->Field("state", CapabilityStateName(capability.state));
    json->Field("why", capability.why);
    json->EndObject();
  }
  json->EndArray();
}

void WriteTotals(const Totals& totals, JsonWriter* json) {
  json->Key("totals");
  json->BeginObject();
  json->Field("liveBytes", totals.live_bytes);
  json->Field("liveBlocks", totals.live_blocks);
  json->Field("allocatedBytes", totals.allocated_bytes);
  json->Field("allocations", totals.allocations);
  json->Field("stacks", totals.stacks);
  json->Field("majorGcs", totals.major_gcs);
  json->Key("unknownFrees");
  totals.unknown_frees.has_value() ? json->Integer(*totals.unknown_frees) : json->Null();
  json->Key("lost");
  json->BeginCompactObject();
  json->Field("blocks", totals.lost.blocks);
  json->Field("stacks", totals.lost.stacks);
  json->Field("bytes", totals.lost.bytes);
  json->EndObject();
  json->EndObject();
}

void WriteStrings(std::string_view key, const std::vector<std::string>& strings, JsonWriter* json) {
  json->Key(key);
  json->BeginArray();
  for (const std::string& text : strings) json->String(text);
  json->EndArray();
}

void WriteRate(const GrowthRate& rate, JsonWriter* json) {
  json->Field("bytesPerSecond", rate.bytes_per_second);
  json->SecondsField("blocksPerSecond", rate.blocks_per_second);
  json->Key("measured");
  if (rate.until_seconds <= rate.from_seconds) return json->Null();
  json->BeginCompactObject();
  json->SecondsField("from", rate.from_seconds);
  json->SecondsField("until", rate.until_seconds);
  json->EndObject();
}

void WriteUntilLimit(const std::optional<double>& seconds, JsonWriter* json) {
  json->Key("secondsUntilLimit");
  seconds.has_value() ? json->Seconds(*seconds) : json->Null();
}

void WriteOutlook(const Outlook& outlook, JsonWriter* json) {
  json->Key("growth");
  json->BeginCompactObject();
  json->Field("bytesPerSecond", outlook.bytes_per_second);
  WriteUntilLimit(outlook.seconds_until_limit, json);
  json->EndObject();
}

void WriteExternal(const std::optional<ExternalMemory>& external, JsonWriter* json) {
  json->Key("external");
  if (!external.has_value()) return json->Null();
  json->BeginObject();
  json->Field("v8Bytes", external->v8_bytes);
  json->Field("toldBytes", external->told_bytes);
  json->Field("arrayBufferBytes", external->array_buffer_bytes);
  json->Key("addons");
  json->BeginArray();
  for (const ExternalMemory::Addon& addon : external->addons) {
    json->BeginCompactObject();
    json->Field("name", addon.name);
    json->Field("heldBytes", addon.held_bytes);
    if (addon.mapped_bytes != 0) json->Field("mappedBytes", addon.mapped_bytes);
    json->EndObject();
  }
  json->EndArray();
  WriteStrings("findings", external->sentences, json);
  json->EndObject();
}

// Only of a node that was attached to. Sizes beyond the limit are in the totals.
void WriteOlderBuffers(const std::optional<OlderBuffers>& older, JsonWriter* json) {
  constexpr size_t kMostSizes = 1000;
  if (!older.has_value()) return;
  json->Key("olderArrayBuffers");
  json->BeginObject();
  json->Field("state", CapabilityStateName(older->state));
  json->Field("why", older->why);
  json->SecondsField("readAt", older->read_at_seconds);
  json->SecondsField("longestPauseMs", older->longest_pause_ms);
  json->Field("liveBytes", older->live_bytes);
  json->Field("liveBlocks", older->live_blocks);
  json->Field("freedBytes", older->freed_bytes);
  json->Field("freedBlocks", older->freed_blocks);
  json->Key("sizes");
  json->BeginArray();
  for (size_t i = 0; i < std::min(older->sizes.size(), kMostSizes); ++i) {
    json->BeginCompactObject();
    json->Field("bytes", older->sizes[i].bytes);
    json->Field("liveBlocks", older->sizes[i].live_blocks);
    json->EndObject();
  }
  json->EndArray();
  json->EndObject();
}

void WriteKinds(const Report& report, JsonWriter* json) {
  json->Key("kinds");
  json->BeginArray();
  for (const KindTotal& total : report.kinds) {
    json->BeginObject();
    json->Field("kind", KindName(total.kind));
    json->Field("liveBytes", total.live_bytes);
    json->Field("liveBlocks", total.live_blocks);
    for (const KindVerdict& judged : report.kind_verdicts) {
      if (judged.kind != total.kind) continue;
      json->Field("verdict", VerdictName(judged.verdict));
      json->Field("confidence", ConfidenceName(judged.confidence));
      WriteStrings("evidence", judged.evidence, json);
      WriteRate(judged.rate, json);
      json->Field("advice", judged.advice);
    }
    json->EndObject();
  }
  json->EndArray();
}

void WriteTimelinePoint(const TimelinePoint& point, JsonWriter* json) {
  json->BeginCompactObject();
  json->SecondsField("t", point.t_seconds);
  json->Field("rss", point.rss_bytes);
  json->Field("live", point.live_bytes);
  json->Key("byKind");
  json->BeginObject();
  for (const KindTotal& total : point.by_kind) json->Field(KindName(total.kind), total.live_bytes);
  json->EndObject();
  json->Field("heapUsed", point.heap_used);
  json->Field("majorGcs", point.major_gcs);
  json->EndObject();
}

void WriteSiteFields(const Site& site, JsonWriter* json) {
  json->Field("function", site.function);
  json->Field("file", site.file);
  json->Field("line", uint64_t{site.line});
  json->Field("column", uint64_t{site.column});
  json->Field("package", site.package);
}

void WriteSite(const std::optional<Site>& site, JsonWriter* json) {
  json->Key("site");
  if (!site.has_value()) return json->Null();
  json->BeginCompactObject();
  WriteSiteFields(*site, json);
  json->EndObject();
}

void WriteLikelySite(const std::optional<LikelySite>& likely, JsonWriter* json) {
  if (!likely.has_value()) return;
  json->Key("likelySite");
  json->BeginCompactObject();
  WriteSiteFields(likely->site, json);
  json->Field("objects", likely->objects);
  json->Field("allObjects", likely->all_objects);
  json->EndObject();
}

void WriteOrigin(const std::optional<Origin>& origin, JsonWriter* json) {
  json->Key("origin");
  if (!origin.has_value()) return json->Null();
  json->BeginCompactObject();
  json->Field("function", origin->function);
  json->Field("module", origin->module);
  json->Field("file", origin->file);
  json->Field("line", uint64_t{origin->line});
  json->Field("package", origin->package);
  json->EndObject();
}

void WriteFrame(const Frame& frame, JsonWriter* json) {
  json->BeginCompactObject();
  json->Field("type", FrameTypeName(frame.type));
  json->Field("function", frame.function);
  json->Field("file", frame.file);
  json->Field("line", uint64_t{frame.line});
  json->Field("column", uint64_t{frame.column});
  json->Field("module", frame.module);
  json->Field("offset", frame.offset);
  json->BoolField("inlined", frame.inlined);
  json->EndObject();
}

void WriteStack(const StackUse& stack, JsonWriter* json) {
  json->BeginObject();
  json->Field("liveBytes", stack.live_bytes);
  json->Field("liveBlocks", stack.live_blocks);
  json->Key("frames");
  json->BeginArray();
  for (const Frame& frame : stack.frames) WriteFrame(frame, json);
  json->EndArray();
  json->EndObject();
}

// Tens of thousands of stacks of one group are of no use to anybody and make files of hundreds of megabytes. What is
// left out is one more entry, so that the sum stays right.
constexpr size_t kMostStacks = 1000;
void WriteOmittedStacks(const std::vector<StackUse>& stacks, JsonWriter* json) {
  if (stacks.size() <= kMostStacks) return;
  StackUse rest;
  for (size_t i = kMostStacks; i < stacks.size(); ++i) {
    rest.live_bytes += stacks[i].live_bytes;
    rest.live_blocks += stacks[i].live_blocks;
  }
  const uint64_t omitted = stacks.size() - kMostStacks;
  json->BeginObject();
  json->Field("liveBytes", rest.live_bytes);
  json->Field("liveBlocks", rest.live_blocks);
  json->Field("omittedStacks", omitted);
  json->Key("frames");
  json->BeginArray();
  Frame marker;
  marker.type = FrameType::kMarker;
  marker.function = absl::StrCat(omitted, " lighter stacks left out");
  WriteFrame(marker, json);
  json->EndArray();
  json->EndObject();
}

void WriteGroup(const Group& group, JsonWriter* json) {
  json->BeginObject();
  json->Field("id", group.id);
  json->Field("kind", KindName(group.kind));
  json->Field("verdict", VerdictName(group.verdict));
  json->Field("confidence", ConfidenceName(group.confidence));
  WriteStrings("evidence", group.evidence, json);
  json->Field("liveBytes", group.live_bytes);
  json->Field("liveBlocks", group.live_blocks);
  if (group.live_bytes_error.has_value()) json->Field("liveBytesError", *group.live_bytes_error);
  json->Field("allocatedBytes", group.allocated_bytes);
  json->Field("allocations", group.allocations);
  WriteRate(group.rate, json);
  WriteUntilLimit(group.seconds_until_limit, json);
  json->Key("holder");  // what keeps it alive: not looked for yet
  json->Null();
  json->Key("survivedGcs");
  json->BeginCompactObject();
  json->Field("min", uint64_t{group.survived_gcs.min});
  json->Field("median", uint64_t{group.survived_gcs.median});
  json->Field("max", uint64_t{group.survived_gcs.max});
  json->EndObject();
  json->SecondsField("firstSeen", group.first_seen_seconds);
  json->SecondsField("lastSeen", group.last_seen_seconds);
  WriteSite(group.site, json);
  WriteLikelySite(group.likely_site, json);
  WriteOrigin(group.origin, json);
  WriteStrings("threads", group.threads, json);
  json->Key("stacks");
  json->BeginArray();
  for (size_t i = 0; i < std::min(group.stacks.size(), kMostStacks); ++i) WriteStack(group.stacks[i], json);
  WriteOmittedStacks(group.stacks, json);
  json->EndArray();
  json->EndObject();
}

// Only when allocations were sampled: all numbers of bytes and blocks are estimates then.
void WriteSampling(const Report& report, JsonWriter* json) {
  if (report.sample_bytes == 0) return;
  json->Key("sampling");
  json->BeginCompactObject();
  json->Field("bytes", report.sample_bytes);
  json->BoolField("automatic", report.sample_automatic);
  json->Field("liveBytesError", report.totals.live_bytes_error.value_or(0));
  json->EndObject();
}

}  // namespace

std::string RenderJson(const Report& report) {
  JsonWriter json;
  json.BeginObject();
  json.Field("schema", "nodeleak-report");
  json.Field("version", uint64_t{1});
  WriteProcess(report.process, &json);
  WriteCapabilities(report.capabilities, &json);
  WriteTotals(report.totals, &json);
  WriteKinds(report, &json);
  WriteMemory(report, &json);
  WriteOutlook(report.outlook, &json);
  WriteExternal(report.external, &json);
  WriteOlderBuffers(report.older_buffers, &json);
  json.Key("timeline");
  json.BeginArray();
  for (const TimelinePoint& point : report.timeline) WriteTimelinePoint(point, &json);
  json.EndArray();
  WriteSampling(report, &json);
  json.Key("groups");
  json.BeginArray();
  for (const Group& group : report.groups) WriteGroup(group, &json);
  json.EndArray();
  json.EndObject();
  return json.Take() + "\n";
}

}  // namespace nodeleak::report
