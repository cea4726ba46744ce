#include "preload/hooks/child_environment.h"

#include <string.h>
#include <unistd.h>

#include "preload/base/system.h"

namespace nodeleak::preload {
namespace {

constexpr char kOurPrefix[] = "NODELEAK_";
constexpr char kOurPath[] = "NODELEAK_PRELOAD=";
constexpr char kChildren[] = "NODELEAK_CHILDREN=";
constexpr char kPreload[] = "LD_PRELOAD=";

constexpr size_t kMaxOurs = 32;
// Of what is rewritten on the caller's stack; anything longer is passed on unchanged.
constexpr size_t kMaxEntries = 16'384;
constexpr size_t kMaxPreloadBytes = 65'536;

struct ForChildren {
  const char* path;  // of the shim; nullptr: nothing to do for children
  bool take_out;     // --children=none
  char* ours[kMaxOurs];
  size_t count;
};
ForChildren g_for_children;

bool StartsWith(const char* text, const char* prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

size_t NameBytes(const char* entry) {
  const char* equals = strchr(entry, '=');
  return equals == nullptr ? strlen(entry) : static_cast<size_t>(equals - entry) + 1;
}

char* Find(char* const* environment, const char* entry) {
  size_t bytes = NameBytes(entry);
  for (; *environment != nullptr; ++environment)
    if (strncmp(*environment, entry, bytes) == 0) return *environment;
  return nullptr;
}

// Linux takes null for an empty one.
char* const* OrEmpty(char* const* environment) {
  static char* empty[] = {nullptr};
  return environment == nullptr ? empty : environment;
}

// LD_PRELOAD separates by colons and spaces.
bool IsSeparator(char c) { return c == ':' || c == ' ' || c == '\0'; }

// The next occurrence of the shim as a whole entry.
const char* FindShim(const char* list) {
  size_t bytes = strlen(g_for_children.path);
  for (const char* at = list; (at = strstr(at, g_for_children.path)) != nullptr; ++at)
    if ((at == list || IsSeparator(at[-1])) && IsSeparator(at[bytes])) return at;
  return nullptr;
}

// A new environment in the caller's room: the list of entries, then the text of LD_PRELOAD.
class NewEnvironment {
 public:
  NewEnvironment(void* room, size_t old_count)
      : entries_(static_cast<char**>(room)), text_(reinterpret_cast<char*>(entries_ + Slots(old_count))) {}

  static size_t Slots(size_t old_count) { return old_count + kMaxOurs + 2; }
  static size_t Bytes(size_t old_count, const char* preload) {
    size_t text = sizeof kPreload + strlen(g_for_children.path) + 1 + (preload != nullptr ? strlen(preload) : 0);
    return Slots(old_count) * sizeof(char*) + text;
  }

  void Append(char* entry) {
    if (entry != nullptr) entries_[count_++] = entry;
  }
  char* const* Finish() {
    entries_[count_] = nullptr;
    return entries_;
  }
  char* text() const { return text_; }

 private:
  char** entries_;
  char* text_;
  size_t count_ = 0;
};

// LD_PRELOAD=<shim>[:<the caller's>]. First also where the caller had it later: an allocator in front of us would
// serve the program without us.
char* WithShim(char* old, char* text) {
  const char* list = old == nullptr ? "" : old + strlen(kPreload);
  const char* shim = FindShim(list);
  if (shim == list) return old;
  char* end = stpcpy(stpcpy(text, kPreload), g_for_children.path);
  if (*list == '\0') return text;
  *end++ = ':';
  if (shim == nullptr) {
    stpcpy(end, list);
  } else {
    const auto before = static_cast<size_t>(shim - list) - 1;  // without its separator
    memcpy(end, list, before);
    stpcpy(end + before, shim + strlen(g_for_children.path));
  }
  return text;
}

// LD_PRELOAD without the shim; nullptr when nothing else was in it.
char* WithoutShim(char* old, char* text) {
  const char* list = old + strlen(kPreload);
  const char* shim = FindShim(list);
  if (shim == nullptr) return old;
  const char* after = shim + strlen(g_for_children.path);
  if (*after != '\0') ++after;  // its separator
  auto before = static_cast<size_t>(shim - list);
  if (*after == '\0' && before > 0) --before;
  if (before == 0 && *after == '\0') return nullptr;
  char* to = stpcpy(text, kPreload);
  memcpy(to, list, before);
  stpcpy(to + before, after);
  return text;
}

char* const* AddOurs(char* const* old, NewEnvironment out) {
  out.Append(WithShim(Find(old, kPreload), out.text()));
  for (char* const* entry = old; *entry != nullptr; ++entry)
    if (!StartsWith(*entry, kPreload)) out.Append(*entry);
  for (size_t i = 0; i < g_for_children.count; ++i)
    if (Find(old, g_for_children.ours[i]) == nullptr) out.Append(g_for_children.ours[i]);
  return out.Finish();
}

char* const* TakeOursOut(char* const* old, NewEnvironment out) {
  for (char* const* entry = old; *entry != nullptr; ++entry) {
    if (StartsWith(*entry, kPreload)) {
      out.Append(WithoutShim(*entry, out.text()));
    } else if (!StartsWith(*entry, kOurPrefix)) {
      out.Append(*entry);
    }
  }
  return out.Finish();
}

bool IsComplete(char* const* environment) {
  const char* preload = Find(environment, kPreload);
  if (preload == nullptr || FindShim(preload + strlen(kPreload)) != preload + strlen(kPreload)) return false;
  for (size_t i = 0; i < g_for_children.count; ++i)
    if (Find(environment, g_for_children.ours[i]) == nullptr) return false;
  return true;
}

size_t Count(char* const* environment) {
  size_t count = 0;
  while (environment[count] != nullptr) ++count;
  return count;
}

}  // namespace

void RememberEnvironmentForChildren() {
  size_t bytes = 0;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    if (StartsWith(*entry, kOurPrefix)) bytes += strlen(*entry) + 1;
  if (bytes == 0) return;
  auto* copy = static_cast<char*>(MapMemory(bytes));  // the program may change its environment
  if (copy == nullptr) return;
  for (char** entry = environ; *entry != nullptr && g_for_children.count < kMaxOurs; ++entry) {
    if (!StartsWith(*entry, kOurPrefix)) continue;
    g_for_children.ours[g_for_children.count++] = copy;
    if (StartsWith(*entry, kOurPath)) g_for_children.path = copy + strlen(kOurPath);
    if (StartsWith(*entry, kChildren)) g_for_children.take_out = strcmp(*entry + strlen(kChildren), "none") == 0;
    copy = stpcpy(copy, *entry) + 1;
  }
}

size_t RoomForEnvironment(char* const* environment) {
  if (g_for_children.path == nullptr) return 0;
  char* const* old = OrEmpty(environment);
  const size_t count = Count(old);
  const char* preload = Find(old, kPreload);
  if (count > kMaxEntries || (preload != nullptr && strlen(preload) > kMaxPreloadBytes)) return 0;
  return NewEnvironment::Bytes(count, preload);
}

char* const* EnvironmentForChild(char* const* environment, const ExecTarget& target, bool replaces_us, void* room) {
  if (room == nullptr) return environment;
  char* const* old = OrEmpty(environment);
  const NewEnvironment out(room, Count(old));
  if ((g_for_children.take_out && !replaces_us) || !TakesShim(target, g_for_children.path))
    return TakeOursOut(old, out);
  return IsComplete(old) ? environment : AddOurs(old, out);
}

}  // namespace nodeleak::preload
