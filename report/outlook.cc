#include "report/outlook.h"

#include <optional>

namespace nodeleak::report {
namespace {

std::optional<double> SecondsUntilLimit(const Memory& memory, uint64_t bytes_per_second) {
  if (memory.limit_bytes == 0 || bytes_per_second == 0) return std::nullopt;
  if (memory.limit_used_bytes >= memory.limit_bytes) return 0;
  return static_cast<double>(memory.limit_bytes - memory.limit_used_bytes) / static_cast<double>(bytes_per_second);
}

}  // namespace

void AddOutlook(Report* report) {
  Outlook& outlook = report->outlook;
  for (Group& group : report->groups) {
    if (group.verdict != Verdict::kGrowing) continue;
    group.seconds_until_limit = SecondsUntilLimit(report->memory, group.rate.bytes_per_second);
    if (!IsBackground(group.kind)) outlook.bytes_per_second += group.rate.bytes_per_second;
  }
  for (const KindVerdict& judged : report->kind_verdicts) {
    if (judged.kind == Kind::kV8Heap) outlook.bytes_per_second += judged.rate.bytes_per_second;
  }
  outlook.seconds_until_limit = SecondsUntilLimit(report->memory, outlook.bytes_per_second);
}

}  // namespace nodeleak::report
