#include "memory/limits.h"

namespace nodeleak::memory {
namespace {

constexpr size_t kMaxPath = 2048;
constexpr uint64_t kNoLimit = 1ull << 60;  // v1 says 2^63 minus a page

struct Path {
  char text[kMaxPath];
  size_t length;

  bool Append(const char* more, size_t bytes) {
    if (length + bytes >= kMaxPath) return false;
    memcpy(text + length, more, bytes);
    length += bytes;
    text[length] = '\0';
    return true;
  }
};

struct Word {
  const char* text;
  size_t length;
  bool Is(const char* other) const { return length == strlen(other) && memcmp(text, other, length) == 0; }
};

// Words of a line of mountinfo, or of a list with another separator.
struct Words {
  const char* p;
  const char* end;
  char separator;

  bool Next(Word* word) {
    if (p >= end) return false;
    const char* begin = p;
    while (p < end && *p != separator) ++p;
    *word = {begin, static_cast<size_t>(p - begin)};
    if (p < end) ++p;
    return true;
  }
};

bool HasWord(const Word& list, const char* wanted) {
  Words words = {list.text, list.text + list.length, ','};
  for (Word word; words.Next(&word);) {
    if (word.Is(wanted)) return true;
  }
  return false;
}

// One hierarchy that may limit memory.
struct Hierarchy {
  bool v2;
  Path group;  // of the process, from /proc/PID/cgroup
  Path root;   // which group is mounted
  Path mount;  // where
  bool found_group, found_mount;
};

// "4:memory:/docker/abc" or "0::/user.slice"
void ReadGroups(const System& system, Hierarchy* v1, Hierarchy* v2) {
  ProcFile file(system, "cgroup");
  if (!file.valid()) return;
  ForEachLine(system, &file, [&](const char* line, size_t length) {
    Words words = {line, line + length, ':'};
    Word number, controllers;
    if (!words.Next(&number) || !words.Next(&controllers)) return;
    Hierarchy* hierarchy = HasWord(controllers, "memory") ? v1 : controllers.length == 0 ? v2 : nullptr;
    if (hierarchy == nullptr || hierarchy->found_group) return;
    hierarchy->found_group = hierarchy->group.Append(words.p, static_cast<size_t>(words.end - words.p));
  });
}

// By a mount at the same place; or because it is of another namespace, where our own group's place is not known.
bool IsReplacedBy(const Hierarchy& hierarchy, const Word& mount) {
  return mount.Is(hierarchy.mount.text) || StartsWith(hierarchy.root.text, hierarchy.root.length, "/..");
}

// "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
void ReadMounts(const System& own, Hierarchy* v1, Hierarchy* v2) {
  ProcFile file(own, "mountinfo");
  if (!file.valid()) return;
  ForEachLine(own, &file, [&](const char* line, size_t length) {
    Words words = {line, line + length, ' '};
    Word root = {}, mount = {}, word = {}, type = {}, options = {};
    constexpr int kRoot = 3, kMount = 4;
    for (int field = 0; field <= kMount; ++field) {
      if (!words.Next(&word)) return;
      if (field == kRoot) root = word;
      if (field == kMount) mount = word;
    }
    while (words.Next(&word) && !word.Is("-")) {
    }
    if (!words.Next(&type) || !words.Next(&word) || !words.Next(&options)) return;
    Hierarchy* hierarchy = type.Is("cgroup2") ? v2 : type.Is("cgroup") && HasWord(options, "memory") ? v1 : nullptr;
    if (hierarchy == nullptr || (hierarchy->found_mount && !IsReplacedBy(*hierarchy, mount))) return;
    hierarchy->root.length = hierarchy->mount.length = 0;
    hierarchy->found_mount =
        hierarchy->root.Append(root.text, root.length) && hierarchy->mount.Append(mount.text, mount.length);
  });
}

// "max" and what is absent are no limit.
uint64_t ReadNumber(const System& own, const Path& folder, const char* name, uint64_t otherwise) {
  Path path = folder;
  if (!path.Append("/", 1) || !path.Append(name, strlen(name))) return otherwise;
  ProcFile file(own, path.text);
  char text[32];
  const long got = file.valid() ? file.Read(text, sizeof text) : 0;
  if (got <= 0 || text[0] < '0' || text[0] > '9') return otherwise;
  const char* p = text;
  return ParseDecimal(&p, text + got);
}

uint64_t Left(const MemoryLimit& limit) {
  if (limit.bytes == 0) return ~0ull;
  return limit.bytes > limit.used_bytes ? limit.bytes - limit.used_bytes : 0;
}

void Consider(const MemoryLimit& limit, MemoryLimit* tightest) {
  if (limit.bytes != 0 && limit.bytes < kNoLimit && Left(limit) < Left(*tightest)) *tightest = limit;
}

// v1 tells a group also of the limits above it that this mount does not show; of their use it does not tell, so it is
// at least the group's own. 0: there is none.
uint64_t ReadHierarchicalLimit(const System& own, const Path& folder) {
  uint64_t bytes = 0;
  Path path = folder;
  constexpr char kName[] = "/memory.stat", kField[] = "hierarchical_memory_limit ";
  if (!path.Append(kName, strlen(kName))) return 0;
  ProcFile file(own, path.text);
  if (!file.valid()) return 0;
  ForEachLine(own, &file, [&](const char* line, size_t length) {
    if (!StartsWith(line, length, kField)) return;
    const char* p = line + strlen(kField);
    bytes = ParseDecimal(&p, line + length);
  });
  return bytes;
}

// Of one group. Returns its hard limit.
MemoryLimit ConsiderGroup(const System& own, const Hierarchy& hierarchy, const Path& folder, MemoryLimit* tightest) {
  const char* hard = hierarchy.v2 ? "memory.max" : "memory.limit_in_bytes";
  const char* usage = hierarchy.v2 ? "memory.current" : "memory.usage_in_bytes";
  const MemoryLimit limit = {ReadNumber(own, folder, hard, 0), ReadNumber(own, folder, usage, 0), false};
  Consider(limit, tightest);
  if (hierarchy.v2) Consider({ReadNumber(own, folder, "memory.high", 0), limit.used_bytes, true}, tightest);
  return limit;
}

// From the process's group up to the mount's root: the one with the least left.
void FindTightest(const System& own, const Hierarchy& hierarchy, MemoryLimit* tightest) {
  if (!hierarchy.found_group || !hierarchy.found_mount) return;
  const Path& root = hierarchy.root;
  const Path& group = hierarchy.group;
  // A container without a namespace of its own sees its group's full path, and just that group mounted.
  const bool is_below = root.length > 1 && StartsWith(group.text, group.length, root.text);
  const char* below = group.text + (is_below ? root.length : 0);
  Path folder = hierarchy.mount;
  const size_t top = folder.length;
  const bool outside = StartsWith(below, strlen(below), "/..") || (root.length > 1 && !is_below);
  if (!outside && strcmp(below, "/") != 0 && !folder.Append(below, strlen(below))) return;
  const uint64_t of_all = hierarchy.v2 ? 0 : ReadHierarchicalLimit(own, folder);
  uint64_t own_used = 0;
  bool is_hidden = of_all != 0;
  for (bool is_own = true;; is_own = false) {
    const MemoryLimit hard = ConsiderGroup(own, hierarchy, folder, tightest);
    if (is_own) own_used = hard.used_bytes;
    if (hard.bytes != 0 && hard.bytes <= of_all) is_hidden = false;
    if (folder.length <= top) break;
    while (folder.length > top && folder.text[folder.length - 1] != '/') --folder.length;
    if (folder.length > top) --folder.length;  // the slash
    folder.text[folder.length] = '\0';
  }
  if (is_hidden) Consider({of_all, own_used, false}, tightest);
}

}  // namespace

MemoryLimit ReadMemoryLimit(const System& system, const System& own) {
  // Two hierarchies of three paths: 12 KiB, too much for a small thread's stack.
  PageArray<Hierarchy> hierarchies(system);
  MemoryLimit tightest = {};
  if (!hierarchies.Resize(2)) return tightest;
  hierarchies[1].v2 = true;
  ReadGroups(system, &hierarchies[0], &hierarchies[1]);
  ReadMounts(own, &hierarchies[0], &hierarchies[1]);
  for (const Hierarchy& hierarchy : hierarchies) FindTightest(own, hierarchy, &tightest);
  return tightest;
}

}  // namespace nodeleak::memory
