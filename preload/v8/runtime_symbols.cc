#include "preload/v8/runtime_symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "preload/v8/symbol_size.h"

namespace nodeleak::preload::v8 {
namespace {

RuntimeSymbols g_symbols;
bool g_missing[static_cast<size_t>(Feature::kCount)];
int g_major;
constexpr int kLastV8WithThreadKey = 10;
CodeRange g_node_code;

struct Row {
  const char* name;
  size_t offset;  // of the pointer in RuntimeSymbols
  Feature feature;
};
constexpr char kCleanupHandles[] = "_ZN4node11Environment14CleanupHandlesEv";
#define FIELD(field) offsetof(RuntimeSymbols, field)
#define GC_CALLBACK "CallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_"
constexpr Row kRows[] = {
    {"_ZN2v87Isolate13TryGetCurrentEv", FIELD(try_get_current), Feature::kIdentity},
    {"_ZN2v86Locker8IsLockedEPNS_7IsolateE", FIELD(is_locked), Feature::kIdentity},
    {"_ZN2v87Isolate9InContextEv", FIELD(in_context), Feature::kIdentity},
    {"_ZN2v82V810GetVersionEv", FIELD(get_version), Feature::kIdentity},
    {"_ZN2v87Isolate17GetCurrentContextEv", FIELD(get_current_context), Feature::kEnvironment},
    {"_ZN4node21GetCurrentEnvironmentEN2v85LocalINS0_7ContextEEE", FIELD(get_current_environment),
     Feature::kEnvironment},
    {"_ZN4node6AtExitEPNS_11EnvironmentEPFvPvES2_", FIELD(node_at_exit), Feature::kEnvironment},
    {"_ZN4node11Environment27RunAndClearNativeImmediatesEb", FIELD(run_native_immediates), Feature::kOptional},
    {"_ZN2v811HandleScopeC1EPNS_7IsolateE", FIELD(handle_scope_open), Feature::kOptional},
    {"_ZN2v811HandleScopeD1Ev", FIELD(handle_scope_close), Feature::kOptional},
    {"_ZN2v811HandleScope16DeleteExtensionsEPNS_7IsolateE", FIELD(handle_scope_extensions), Feature::kOptional},
    {"_ZN2v87Isolate21AddGCPrologue" GC_CALLBACK "S2_", FIELD(add_gc_prologue), Feature::kGcEvents},
    {"_ZN2v87Isolate21AddGCEpilogue" GC_CALLBACK "S2_", FIELD(add_gc_epilogue), Feature::kGcEvents},
    {"_ZN2v87Isolate24RemoveGCPrologue" GC_CALLBACK, FIELD(remove_gc_prologue), Feature::kGcEvents},
    {"_ZN2v87Isolate24RemoveGCEpilogue" GC_CALLBACK, FIELD(remove_gc_epilogue), Feature::kGcEvents},
    {"_ZN2v87Isolate21LowMemoryNotificationEv", FIELD(low_memory_notification), Feature::kForcedGc},
    {"_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_", FIELD(request_interrupt), Feature::kForcedGc},
    {"_ZN2v812api_internal18GlobalizeReferenceEPNS_8internal7IsolateEPm", FIELD(globalize_slot), Feature::kOptional},
    {"_ZN2v812api_internal18GlobalizeReferenceEPNS_8internal7IsolateEm", FIELD(globalize_value), Feature::kOptional},
    {"_ZN2v812api_internal8MakeWeakEPPm", FIELD(make_weak), Feature::kHandles},
    {"_ZN2v812api_internal9ClearWeakEPm", FIELD(clear_weak), Feature::kHandles},
    {"_ZN4node19GetCurrentEventLoopEPN2v87IsolateE", FIELD(get_current_event_loop), Feature::kEventLoop},
    {"uv_backend_fd", FIELD(uv_backend_fd), Feature::kEventLoop},
    {"uv_loop_alive", FIELD(uv_loop_alive), Feature::kOptional},
    {"uv_async_send", FIELD(uv_async_send), Feature::kEventLoop},
    {"_ZN2v87Isolate17GetHeapStatisticsEPNS_14HeapStatisticsE", FIELD(get_heap_statistics), Feature::kHeapStatistics},
    {"_ZN2v87Isolate18NumberOfHeapSpacesEv", FIELD(number_of_heap_spaces), Feature::kHeapStatistics},
    {"_ZN2v87Isolate22GetHeapSpaceStatisticsEPNS_19HeapSpaceStatisticsEm", FIELD(get_heap_space_statistics),
     Feature::kHeapStatistics},
    {"_ZN2v87Isolate37AdjustAmountOfExternalAllocatedMemoryEl", FIELD(adjust_external_memory), Feature::kOptional},
    {"_ZN2v88internal7Isolate20isolate_key_created_E", FIELD(isolate_key_created), Feature::kOptional},
    {kCleanupHandles, FIELD(cleanup_handles), Feature::kOptional},
    {"_ZN4node11per_process8metadataE", FIELD(node_metadata), Feature::kOptional},
};
#undef GC_CALLBACK
#undef FIELD

int FindExecutableSegment(dl_phdr_info* info, size_t, void* data) {
  auto address = reinterpret_cast<uint64_t>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    uint64_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || address < start || address >= start + segment.p_memsz) continue;
    g_node_code = {start, start + segment.p_memsz};
    return 1;
  }
  return 0;
}

}  // namespace

bool FindRuntimeSymbols(const char** why) {
  for (const Row& row : kRows) {
    void* found = dlsym(RTLD_DEFAULT, row.name);
    memcpy(reinterpret_cast<char*>(&g_symbols) + row.offset, &found, sizeof found);
    if (found == nullptr) g_missing[static_cast<size_t>(row.feature)] = true;
  }
  *why = "no V8 in this process";
  if (!HasFeature(Feature::kIdentity)) return false;
  *why = "this version of V8 is not known";
  g_major = atoi(g_symbols.get_version());  // returns a static string; usable before V8 starts
  if (g_major < kOldestV8 || g_major > kNewestV8) return false;
  *why = "V8 10 does not export whether its thread-specific key exists";
  if (g_major == kLastV8WithThreadKey && g_symbols.isolate_key_created == nullptr) return false;
  dl_iterate_phdr(FindExecutableSegment, reinterpret_cast<void*>(g_symbols.try_get_current));
  *why = nullptr;
  return true;
}

const RuntimeSymbols& symbols() { return g_symbols; }
bool HasFeature(Feature feature) { return !g_missing[static_cast<size_t>(feature)]; }
int V8Major() { return g_major; }

Isolate* TryGetCurrentIsolate() {
  // Before V8 10 has made its key it reads key 0: some other library's value, taken for an isolate. Later majors keep
  // the isolate in a thread-local variable.
  const char* created = g_symbols.isolate_key_created;
  if (created != nullptr && __atomic_load_n(created, __ATOMIC_ACQUIRE) == 0) return nullptr;
  return g_symbols.try_get_current();
}

bool IsNodeCode(uint64_t address) { return address >= g_node_code.start && address < g_node_code.end; }

CodeRange CodeOfCleanupHandles() {
  const auto start = reinterpret_cast<uint64_t>(g_symbols.cleanup_handles);
  return {start, start + SymbolSize(kCleanupHandles, g_symbols.cleanup_handles)};
}

}  // namespace nodeleak::preload::v8
