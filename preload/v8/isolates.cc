#include "preload/v8/isolates.h"

#include <sys/syscall.h>

#include "preload/base/guard.h"
#include "preload/base/safe_read.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/collection.h"
#include "preload/v8/end_of_process.h"
#include "preload/v8/event_loop.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/runtime.h"
#include "preload/v8/runtime_node_version.h"
#include "preload/v8/script_scopes.h"

namespace nodeleak::preload::v8 {
namespace {

constexpr uint32_t kNoGcs = 0;

IsolateRecord g_records[kMaxIsolates];
uint32_t g_used_slots;  // all behind were never used
IsolateRecord* g_main;
uint32_t g_generations;
SpinLock g_lock;  // guards the slots and g_main

__thread IsolateRecord* t_record __attribute__((tls_model("initial-exec")));
// FreeEnvironment polls again after our AtExit callback: its isolate is not new.
__thread Isolate* t_ended __attribute__((tls_model("initial-exec")));
__thread uint32_t t_ended_in __attribute__((tls_model("initial-exec")));  // that recording; a later one meets it anew
// V8 and node, called while we register, open files themselves.
__thread bool t_registering __attribute__((tls_model("initial-exec")));

// A V8 HandleScope around what returns a Local: in the event loop node seals the outer scope, and a Local there would
// be fatal.
class Scope {
 public:
  explicit Scope(Isolate* isolate) : isolate_(isolate) {
    const RuntimeSymbols& v8 = symbols();
    if (v8.handle_scope_open != nullptr && v8.handle_scope_close != nullptr) {
      v8.handle_scope_open(scope_, isolate);
      open_ = true;
      return;
    }
    data_ = FindScopeData();
    if (data_ == nullptr) return;
    saved_ = *data_;
    ++data_->level;
    open_ = true;
  }
  ~Scope() {
    if (!open_) return;
    if (data_ == nullptr) {
      symbols().handle_scope_close(scope_);
      return;
    }
    data_->next = saved_.next;
    --data_->level;
    if (data_->limit == saved_.limit) return;
    data_->limit = saved_.limit;
    symbols().handle_scope_extensions(scope_, isolate_);
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  bool open() const { return open_; }

 private:
  // v8::internal::HandleScopeData, at a fixed place in V8 14's Isolate: kHandleScopeDataOffset of the v8-internal.h
  // that node 26 ships.
  static constexpr int kInlineScopesSince = 14;
  static constexpr uint64_t kScopeDataOffset = 560;
  struct ScopeData {
    uint64_t next, limit;
    int level, sealed_level;
  };
  ScopeData* FindScopeData() const {
    if (V8Major() != kInlineScopesSince || symbols().handle_scope_extensions == nullptr) return nullptr;
    ScopeData data;
    auto address = reinterpret_cast<uint64_t>(isolate_) + kScopeDataOffset;
    if (!SafeRead(address, &data, sizeof data)) return nullptr;
    constexpr uint64_t kMaxBlockBytes = 8 * 1024;  // V8 hands out handles in blocks of 1022 slots
    // Both are 0 before the first handle of a thread.
    bool plausible = (data.next != 0 || data.limit == 0) && data.next <= data.limit &&
                     data.limit - data.next <= kMaxBlockBytes && (data.next & 7) == 0 && (data.limit & 7) == 0 &&
                     data.level >= 1 && data.level < 1000 && data.sealed_level >= 0 && data.sealed_level <= data.level;
    return plausible ? reinterpret_cast<ScopeData*>(address) : nullptr;
  }

  Isolate* isolate_;
  ScopeData* data_ = nullptr;
  ScopeData saved_;
  bool open_ = false;
  alignas(16) char scope_[64];  // a v8::HandleScope is 24 bytes
};

bool CanFindEnvironment() { return HasFeature(Feature::kEnvironment); }

// Needs an open handle scope. nullptr for contexts that are not node's (a fresh context, isolated-vm...).
Environment* CurrentEnvironment(Isolate* isolate) {
  Context* context = symbols().get_current_context(isolate);
  return context == nullptr ? nullptr : symbols().get_current_environment(context);
}

// Needs an open handle scope, too.
void FindEnvironment(IsolateRecord* record) {
  record->environment = CurrentEnvironment(record->isolate);
  if (record->environment == nullptr) return;
  symbols().node_at_exit(record->environment, OnEnvironmentExit, record);
  FindEventLoop(record);
}

// What the last walk of this thread saw in the heap is no longer true, and nothing is while a collection runs.
void HeapMoves(const IsolateRecord* record) {
  ++t_locals.gc_epoch;
  t_locals.watches_gc = record == t_record && record->watches_gc && record->gc_depth == 0;
}

// The index belongs to the recording of today.
bool IsToldTo(const IsolateRecord& record) {
  return record.index != recording::kNoIndex && record.recording == RecordingNumber();
}

// V8 runs this on the isolate's thread, with a handle scope of its own open around it: the environment can be found
// here when we cannot open one.
void GcBegins(Isolate* isolate, int, int, void* data) {
  auto* record = static_cast<IsolateRecord*>(data);
  if (record->gc_depth == 0 && record == t_record) {
    KeepNotedScopes(record);
    HoldScopesAtEnd(record);
    Guard guard;
    if (guard.outermost()) CollectionBegins();
  }
  record->gc_start_ns = MonotonicNanoseconds();
  ++record->gc_depth;
  HeapMoves(record);
  if (record->environment != nullptr || !CanFindEnvironment() || !RuntimeStarted() || !IsRecording()) return;
  if (symbols().in_context(isolate)) FindEnvironment(record);
}

void GcEnds(Isolate*, int type, int, void* data) {
  auto* record = static_cast<IsolateRecord*>(data);
  if (record->gc_depth > 0) --record->gc_depth;
  if (record->gc_depth == 0 && record == t_record) LetScopesGo();
  HeapMoves(record);
  const bool full = (type & kGcTypeMarkCompact) != 0;
  if (full) __atomic_store_n(&record->major_gcs, record->major_gcs + 1, __ATOMIC_RELAXED);
  if (!RuntimeStarted() || !IsRecording() || !IsToldTo(*record)) return;
  {
    Guard guard;
    uint64_t now = MonotonicNanoseconds();
    uint64_t duration = record->gc_start_ns == 0 ? 0 : now - record->gc_start_ns;
    CollectionFinished({record->index, static_cast<uint32_t>(type), duration});
  }
  if ((type & (kGcTypeMarkCompact | kGcTypeYoung)) != 0) ReadHeapAfterCollection(record, full);
}

bool IsFirstThread(uint32_t thread_id) { return thread_id == static_cast<uint32_t>(RawSyscall(SYS_getpid)); }

IsolateRecord* TakeSlot(Isolate* isolate) {
  if (!g_lock.TryLock()) return nullptr;  // asked again at the next call
  IsolateRecord* slot = nullptr;
  for (IsolateRecord& record : g_records) {
    if (record.isolate != nullptr) continue;
    slot = &record;
    break;
  }
  if (slot != nullptr) {
    auto thread_id = static_cast<uint32_t>(RawSyscall(SYS_gettid));
    *slot = {.isolate = isolate, .index = recording::kNoIndex, .thread_id = thread_id};
    slot->generation = ++g_generations;
    auto used = static_cast<uint32_t>(slot - g_records) + 1;
    if (used > g_used_slots) g_used_slots = used;
    slot->is_main = g_main == nullptr && IsFirstThread(thread_id);
    if (slot->is_main) g_main = slot;
  }
  g_lock.Unlock();
  return slot;
}

void WatchCollections(IsolateRecord* record) {
  if (!HasFeature(Feature::kGcEvents)) return;
  symbols().add_gc_prologue(record->isolate, GcBegins, record, kGcTypeAll);
  symbols().add_gc_epilogue(record->isolate, GcEnds, record, kGcTypeAll);
  record->watches_gc = true;
  HeapMoves(record);
}

// Makes the record the calling thread's: what allocations and JavaScript frames are counted under.
void Enter(IsolateRecord* record) {
  t_record = record;
  t_major_gcs = record == nullptr ? nullptr : &record->major_gcs;
  SetCurrentIsolateGeneration(record == nullptr ? 0 : record->generation);
  t_locals.watches_gc = record != nullptr && record->watches_gc && record->gc_depth == 0;
}

void TellRecording(IsolateRecord* record) {
  Guard guard;
  if (record->is_main) ReportNodeVersion();
  record->index = IsolateRegistered(reinterpret_cast<uint64_t>(record->isolate), record->is_main);
  record->recording = RecordingNumber();
  record->buffers = {};
}

IsolateRecord* Register(Isolate* isolate) {
  IsolateRecord* record = TakeSlot(isolate);
  if (record == nullptr) return nullptr;
  TellRecording(record);
  if (record->is_main) __atomic_store_n(&g_main_major_gcs, &record->major_gcs, __ATOMIC_RELAXED);
  Enter(record);
  WatchCollections(record);
  return record;
}

// An isolate that came back on a thread that owns several.
IsolateRecord* FindKnown(Isolate* isolate) {
  auto thread_id = static_cast<uint32_t>(RawSyscall(SYS_gettid));
  for (IsolateRecord& record : g_records)
    if (record.isolate == isolate && record.thread_id == thread_id) return &record;
  return nullptr;
}

}  // namespace

__thread const uint32_t* t_major_gcs;
const uint32_t* g_main_major_gcs = &kNoGcs;

IsolateRecord* CurrentIsolateRecord() { return t_record; }

IsolateRecord* FindOrRegisterIsolate() {
  // V8 13 and later set the current isolate on their collector threads too; only the holder of the Locker owns it.
  Isolate* isolate = TryGetCurrentIsolate();
  if (isolate == nullptr) return nullptr;
  if (t_record != nullptr && t_record->isolate == isolate) {
    if (__builtin_expect(t_record->recording != RecordingNumber(), 0)) TellRecording(t_record);
    return t_record;
  }
  const bool has_ended = isolate == t_ended && t_ended_in == RecordingNumber();
  if (has_ended || t_registering || !symbols().is_locked(isolate) || !symbols().in_context(isolate)) return nullptr;
  if (IsolateRecord* known = FindKnown(isolate)) {
    Enter(known);
    return known;
  }
  t_registering = true;
  IsolateRecord* record = nullptr;
  {
    Scope scope(isolate);
    bool can_ask = scope.open() && CanFindEnvironment();
    // Without an environment it is not node's isolate, or node is not that far yet.
    if (!can_ask || CurrentEnvironment(isolate) != nullptr) record = Register(isolate);
    if (can_ask && record != nullptr) FindEnvironment(record);
  }
  t_registering = false;
  return record;
}

void ForgetCollections() {
  for (IsolateRecord& record : g_records) __atomic_store_n(&record.major_gcs, 0u, __ATOMIC_RELAXED);
}

void Unregister(IsolateRecord* record) {
  if (record->watches_gc) {
    symbols().remove_gc_prologue(record->isolate, GcBegins, record);
    symbols().remove_gc_epilogue(record->isolate, GcEnds, record);
    record->watches_gc = false;
  }
  if (IsToldTo(*record)) {
    Guard guard;
    IsolateDisposed(record->index);
  }
  __atomic_store_n(&record->ended, true, __ATOMIC_RELEASE);
  CollectionGone(record);
  t_ended = record->isolate;
  t_ended_in = RecordingNumber();
  Enter(nullptr);
  // The watcher may be talking to the isolate, for microseconds. When it never ends, the slot is given up, not reused.
  const bool locked = g_lock.TryLock();
  if (g_main == record) {
    // Threads without an isolate go on counting under what the main isolate had reached.
    static uint32_t last_major_gcs;
    last_major_gcs = record->major_gcs;
    __atomic_store_n(&g_main_major_gcs, &last_major_gcs, __ATOMIC_RELAXED);
    g_main = nullptr;
  }
  if (!locked) return;
  record->isolate = nullptr;
  g_lock.Unlock();
}

bool IsBackFromEnd() {
  if (t_ended == nullptr || TryGetCurrentIsolate() != t_ended) return false;
  t_ended = nullptr;
  return true;
}

IsolatesHold::IsolatesHold() : locked_(g_lock.TryLock()) {
  if (!locked_) return;
  first_ = g_records;
  end_ = g_records + g_used_slots;
}
IsolatesHold::~IsolatesHold() {
  if (locked_) g_lock.Unlock();
}
IsolateRecord* IsolatesHold::main() const { return locked_ ? g_main : nullptr; }

}  // namespace nodeleak::preload::v8
