#include "report/memory_lines.h"

namespace nodeleak::report {
namespace {

using recording::Recording;

struct HeapSize {
  uint64_t total = 0, physical = 0;
};
HeapSize HeapOf(const Recording& recording) {
  HeapSize heap;
  for (const recording::Isolate& isolate : recording.isolates) {
    if (isolate.disposed_ns != 0) continue;
    heap.total += isolate.heap_total;
    heap.physical += isolate.heap_physical;
  }
  return heap;
}

}  // namespace

uint64_t RssOf(const Recording& recording) {
  if (recording.totals.rss_at_freeze != 0) return recording.totals.rss_at_freeze;
  return recording.timeline.empty() ? 0 : recording.timeline.back().rss_bytes;
}

Memory DescribeMemory(const Recording& recording, const std::vector<KindTotal>& kinds, uint64_t reserved_bytes) {
  Memory memory;
  memory.at = "estimate";
  memory.rss_bytes = RssOf(recording);
  uint64_t explained = 0;
  const HeapSize heap = HeapOf(recording);
  if (heap.total != 0) {
    memory.lines.push_back({kJsHeapLine, heap.total, heap.physical, "V8's statistics of all isolates"});
    explained += heap.physical != 0 ? heap.physical : heap.total;
  }
  for (const KindTotal& total : kinds) {
    if (total.live_bytes == 0 || total.kind == Kind::kThreadStack) continue;
    if (total.kind == Kind::kV8Heap && heap.total != 0) continue;  // the same pages, by their mappings
    memory.lines.push_back({KindName(total.kind), total.live_bytes, std::nullopt, "outstanding"});
    explained += total.live_bytes;
  }
  if (recording.totals.file_bytes != 0) {
    memory.lines.push_back({"nodeleak", recording.totals.file_bytes, std::nullopt, "the recording itself"});
    explained += recording.totals.file_bytes;
  }
  if (memory.rss_bytes > explained) {
    memory.lines.push_back({"unexplained", memory.rss_bytes - explained, memory.rss_bytes - explained,
                            "program files, thread stacks, and what malloc keeps after free"});
  }
  if (reserved_bytes != 0) {
    memory.lines.push_back({"reserved", reserved_bytes, 0, "address space, not memory: no part of the RSS"});
  }
  return memory;
}

}  // namespace nodeleak::report
