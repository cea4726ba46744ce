#include "memory/areas.h"

namespace nodeleak::memory {
namespace {

struct NameRow {
  const char* prefix;
  AreaKind kind;
};
// fs/proc/task_mmu.c, show_map_vma, and the names that shmem gives. The first match counts.
constexpr NameRow kNames[] = {
    {"[heap]", AreaKind::kBreak},     {"[stack]", AreaKind::kMainStack},
    {"[anon:", AreaKind::kAnonymous}, {"[anon_shmem", AreaKind::kShared},
    {"[", AreaKind::kKernel},         {"/dev/shm/", AreaKind::kShared},
    {"/memfd:", AreaKind::kShared},   {"/SYSV", AreaKind::kShared},
    {"/dev/zero", AreaKind::kShared}, {"/", AreaKind::kFile},
};

AreaKind KindOf(const char* name, size_t length) {
  for (const NameRow& row : kNames) {
    if (StartsWith(name, length, row.prefix)) return row.kind;
  }
  return length == 0 ? AreaKind::kAnonymous : AreaKind::kFile;
}

// "55f49686b000-55f496870000 r-xp 00002000 fe:00 247134                     /usr/bin/cat"
bool ParseHead(const char* p, const char* end, Area* area) {
  area->start = ParseHex(&p, end);
  if (p >= end || *p != '-') return false;
  area->end = ParseHex(&++p, end);
  constexpr size_t kRights = 5;
  if (end - p < static_cast<long>(kRights) || *p != ' ' || area->end <= area->start) return false;
  area->writable = p[2] == 'w';
  p += kRights;
  for (int field = 0; field < 2; ++field) {  // offset, device
    while (p < end && *p == ' ') ++p;
    while (p < end && *p != ' ') ++p;
  }
  area->inode = ParseDecimal(&p, end);
  while (p < end && *p == ' ') ++p;
  area->kind = KindOf(p, static_cast<size_t>(end - p));
  return true;
}

// "Rss:                  20 kB"
bool ParseKilobytes(const char* line, size_t length, const char* name, uint64_t* bytes) {
  if (!StartsWith(line, length, name)) return false;
  const char* p = line + strlen(name);
  *bytes = ParseDecimal(&p, line + length) * 1024;
  return true;
}

}  // namespace

bool ReadAreas(const System& system, PageArray<Area>* areas) {
  ProcFile file(system, "smaps");
  if (!file.valid()) return false;
  return ForEachLine(system, &file, [&](const char* line, size_t length) {
    if (length == 0) return;
    const bool is_field = line[0] >= 'A' && line[0] <= 'Z';
    if (!is_field) {
      Area area = {};
      if (ParseHead(line, line + length, &area)) areas->Append(area);
    } else if (!areas->empty()) {
      Area& area = (*areas)[areas->size() - 1];
      ParseKilobytes(line, length, "Rss:", &area.resident) || ParseKilobytes(line, length, "Swap:", &area.swapped);
    }
  });
}

StatusNumbers ReadStatus(const System& system) {
  StatusNumbers numbers = {};
  ProcFile file(system, "status");
  if (!file.valid()) return numbers;
  ForEachLine(system, &file, [&](const char* line, size_t length) {
    ParseKilobytes(line, length, "VmPTE:", &numbers.page_tables) ||
        ParseKilobytes(line, length, "VmSwap:", &numbers.swapped) ||
        ParseKilobytes(line, length, "VmHWM:", &numbers.peak_resident);
  });
  return numbers;
}

}  // namespace nodeleak::memory
