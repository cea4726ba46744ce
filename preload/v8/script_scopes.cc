#include "preload/v8/script_scopes.h"

#include <string.h>

#include "preload/base/guard.h"
#include "preload/base/proc_text.h"
#include "preload/base/system.h"
#include "preload/v8/heap_reader.h"
#include "preload/v8/layout.h"
#include "preload/v8/runtime.h"

namespace nodeleak::preload::v8 {
namespace {

constexpr uint32_t kMostNoted = 128, kMostKept = 256;
constexpr int kMostNested = 16;

// Raw: true until the next collection begins.
uint64_t g_noted[kMostNoted];
uint32_t g_noted_count;
uint32_t g_noted_epoch;  // t_locals.gc_epoch

// One context of each scope.
struct Kept {
  Handle* handle;    // V8 sets it to nullptr when the context has gone
  bool one_of_many;  // the scope was met with another context, too: variables of a call, not of the program
};
Kept g_kept[kMostKept];
bool g_held, g_held_for_collection;  // their handles are strong; by HoldScopesAtEnd
bool g_builds_snapshot;

// V8 aborts when it finds a handle, weak or not, in an isolate that is made into a startup snapshot
// (src/snapshot/snapshot.cc). None of these options may come from NODE_OPTIONS.
bool MayBuildSnapshot(const MappedText& command) {
  constexpr const char* kOptions[] = {"--build-snapshot", "--experimental-sea-config", "--build-sea"};
  for (const char* argument = NextArgument(command, nullptr); argument != nullptr;
       argument = NextArgument(command, argument)) {
    for (const char* option : kOptions)
      if (strncmp(argument, option, strlen(option)) == 0) return true;
  }
  return false;
}

bool CanKeep() {
  return !g_builds_snapshot && Has(Field::kFirstContextType) && Has(Field::kLastContextType) &&
         HasFeature(Feature::kHandles) && (symbols().globalize_slot != nullptr || symbols().globalize_value != nullptr);
}

bool IsContext(uint64_t object) {
  if (!IsHeapObject(object)) return false;
  const int32_t type = InstanceType(object);
  return type >= Get(Field::kFirstContextType) && type <= Get(Field::kLastContextType);
}

// Of which a function makes one with each call.
uint64_t ScopeOf(uint64_t context) { return ReadElement(context, Get(Field::kContextScopeIndex)); }

Kept* FindKept(uint64_t scope) {
  for (Kept& kept : g_kept) {
    if (kept.handle != nullptr && ScopeOf(kept.handle->object) == scope) return &kept;
  }
  return nullptr;
}

void Keep(IsolateRecord* record, uint64_t context) {
  if (Kept* known = FindKept(ScopeOf(context))) {
    known->one_of_many = known->one_of_many || known->handle->object != context;
    return;
  }
  for (Kept& kept : g_kept) {
    if (kept.handle != nullptr) continue;
    uint64_t slot = context;
    kept.handle = symbols().globalize_value != nullptr ? symbols().globalize_value(record->isolate, context)
                                                       : symbols().globalize_slot(record->isolate, &slot);
    kept.one_of_many = false;
    symbols().make_weak(&kept.handle);
    return;
  }
}

// Outwards, up to the context of the realm, which is nobody's variables.
void KeepWithOuter(IsolateRecord* record, uint64_t context) {
  for (int i = 0; i < kMostNested && IsContext(context); ++i) {
    const uint64_t outer = ReadElement(context, Get(Field::kContextPreviousIndex));
    if (!IsContext(outer)) return;
    Keep(record, context);
    context = outer;
  }
}

void Hold() {
  g_held = true;
  for (const Kept& kept : g_kept) {
    if (kept.handle != nullptr && !kept.one_of_many) symbols().clear_weak(kept.handle);
  }
}

void LetGo() {
  for (Kept& kept : g_kept) {
    if (kept.handle != nullptr && !kept.one_of_many) symbols().make_weak(&kept.handle);
  }
  g_held = false;
}

}  // namespace

void PrepareScopes() {
  MappedText command = ReadWholeFile("/proc/self/cmdline");
  g_builds_snapshot = command.data == nullptr || MayBuildSnapshot(command);
  UnmapMemory(command.data, command.mapped);
}

void NoteScope(uint64_t context) {
  const IsolateRecord* record = CurrentIsolateRecord();
  if (record == nullptr || !record->is_main || !t_locals.watches_gc) return;
  if (g_noted_epoch != t_locals.gc_epoch) g_noted_count = 0;
  g_noted_epoch = t_locals.gc_epoch;
  for (uint32_t i = 0; i < g_noted_count; ++i) {
    if (g_noted[i] == context) return;
  }
  if (g_noted_count < kMostNoted) g_noted[g_noted_count++] = context;
}

void KeepNotedScopes(IsolateRecord* record) {
  if (g_noted_count == 0 || !record->is_main || g_held) return;
  const uint32_t count = g_noted_count;
  g_noted_count = 0;
  if (g_noted_epoch != t_locals.gc_epoch || !t_locals.watches_gc || !CanKeep()) return;
  Guard guard;
  for (uint32_t i = 0; i < count; ++i) KeepWithOuter(record, g_noted[i]);
}

void HoldScopesAtEnd(IsolateRecord* record) {
  if (g_held || !record->is_main || !record->has_turned || record->loop == nullptr) return;
  if (symbols().uv_loop_alive == nullptr || symbols().uv_loop_alive(record->loop) != 0) return;
  Hold();
  g_held_for_collection = true;
}

void LetScopesGo() {
  if (!g_held_for_collection) return;
  g_held_for_collection = false;
  LetGo();
}

ScopesHold::ScopesHold(IsolateRecord* record) {
  KeepNotedScopes(record);
  Hold();
}

ScopesHold::~ScopesHold() { LetGo(); }

}  // namespace nodeleak::preload::v8
