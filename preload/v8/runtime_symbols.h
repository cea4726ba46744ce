// Runs inside node, on any thread. Plain function pointers into V8 and node, found once; nothing here is called
// without looking at the feature first.
//
// No V8 header is included: the names are mangled and the few layouts that we need are declared again, so one shim
// serves every major from 10 to 14 (node 18 to 26).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nodeleak::preload::v8 {

struct Isolate;      // v8::Isolate
struct Environment;  // node::Environment
struct EventLoop;    // uv_loop_t
struct Context;      // what a v8::Local<v8::Context> holds: a pointer to a handle's slot
struct Handle {      // what a v8::Global holds a pointer to
  uint64_t object;   // tagged
};

inline constexpr int kOldestV8 = 10;
inline constexpr int kNewestV8 = 14;

// v8::GCType bits and the callback's shape; unchanged from V8 10 to 14.
inline constexpr int kGcTypeYoung = 3;  // scavenge, minor mark-sweep
inline constexpr int kGcTypeMarkCompact = 4;
inline constexpr int kGcTypeAll = 31;
using GcCallback = void (*)(Isolate*, int type, int flags, void* data);
using PlainCallback = void (*)(void* data);
using InterruptCallback = void (*)(Isolate*, void* data);

struct RuntimeSymbols {
  // which isolate is this thread's
  Isolate* (*try_get_current)();
  bool (*is_locked)(Isolate*);
  bool (*in_context)(Isolate*);
  const char* (*get_version)();
  // its environment
  Context* (*get_current_context)(Isolate*);
  Environment* (*get_current_environment)(Context*);
  void (*node_at_exit)(Environment*, PlainCallback, void*);
  void (*run_native_immediates)(Environment*, bool only_refed);
  void (*handle_scope_open)(void*, Isolate*);        // V8 10 to 13
  void (*handle_scope_close)(void*);                 // V8 10 to 13
  void (*handle_scope_extensions)(void*, Isolate*);  // V8 14, where the two above are inline
  // collections
  void (*add_gc_prologue)(Isolate*, GcCallback, void*, int types);
  void (*add_gc_epilogue)(Isolate*, GcCallback, void*, int types);
  void (*remove_gc_prologue)(Isolate*, GcCallback, void*);
  void (*remove_gc_epilogue)(Isolate*, GcCallback, void*);
  void (*low_memory_notification)(Isolate*);
  void (*request_interrupt)(Isolate*, InterruptCallback, void*);
  // handles of V8's api_internal: what the inline functions of v8::Global call
  Handle* (*globalize_slot)(Isolate*, uint64_t* object);  // V8 10, 11
  Handle* (*globalize_value)(Isolate*, uint64_t object);  // V8 12 to 14
  void (*make_weak)(Handle**);                            // set to nullptr when the object goes
  void* (*clear_weak)(Handle*);
  // event loops
  EventLoop* (*get_current_event_loop)(Isolate*);
  int (*uv_backend_fd)(const EventLoop*);
  int (*uv_loop_alive)(const EventLoop*);
  int (*uv_async_send)(void* handle);
  // statistics
  void (*get_heap_statistics)(Isolate*, void*);
  int64_t (*adjust_external_memory)(Isolate*, int64_t);
  size_t (*number_of_heap_spaces)(Isolate*);
  bool (*get_heap_space_statistics)(Isolate*, void*, size_t);
  // found as addresses only
  const char* isolate_key_created;  // V8 10: not 0 once V8 has made its thread-specific key
  const void* cleanup_handles;      // node::Environment::CleanupHandles
  const void* node_metadata;        // node::per_process::metadata
};

enum class Feature : uint8_t {
  kIdentity,
  kEnvironment,
  kGcEvents,
  kForcedGc,
  kEventLoop,
  kHandles,
  kHeapStatistics,
  kOptional,
  kCount
};

// Looks everything up. False: no V8 in this process, or one that we do not know (*why says which).
bool FindRuntimeSymbols(const char** why);
const RuntimeSymbols& symbols();
bool HasFeature(Feature feature);
int V8Major();

// The calling thread's isolate, or nullptr. Not necessarily one that the thread owns.
Isolate* TryGetCurrentIsolate();

// Code of the module that V8 lives in: node itself, or libnode.so.
bool IsNodeCode(uint64_t address);

// Code range of one of the functions above; {0, 0} when unknown.
struct CodeRange {
  uint64_t start, end;
};
CodeRange CodeOfCleanupHandles();  // node::Environment::CleanupHandles; {0, 0} or empty: not known

}  // namespace nodeleak::preload::v8
