#include "preload/v8/runtime.h"

#include "preload/recorder/recorder.h"
#include "preload/v8/end_of_process.h"
#include "preload/v8/heap_statistics.h"
#include "preload/v8/isolates.h"
#include "preload/v8/runtime_symbols.h"
#include "preload/v8/script_scopes.h"

namespace nodeleak::preload::v8 {
namespace {

bool g_started;

struct CapabilityRow {
  recording::CapabilityId capability;
  Feature feature;
  const char* missing;
};
constexpr CapabilityRow kCapabilities[] = {
    {recording::CapabilityId::kGcEvents, Feature::kGcEvents, "V8 does not export its GC callbacks"},
    {recording::CapabilityId::kForcedGc, Feature::kForcedGc, "V8 does not export LowMemoryNotification"},
    {recording::CapabilityId::kHeapStatistics, Feature::kHeapStatistics, "V8 does not export its heap statistics"},
    {recording::CapabilityId::kEndOfProcess, Feature::kEnvironment, "node does not export AtExit"},
};

void ReportCapability(const CapabilityRow& row, const char* why_nothing) {
  using recording::CapabilityState;
  if (why_nothing != nullptr) return SetCapability(row.capability, CapabilityState::kAbsent, why_nothing);
  if (!HasFeature(row.feature)) return SetCapability(row.capability, CapabilityState::kAbsent, row.missing);
  // Said to be full only when its layout has been proved: heap_statistics.cc.
  if (row.capability == recording::CapabilityId::kHeapStatistics && !HeapStatisticsAddUp()) return;
  SetCapability(row.capability, CapabilityState::kFull, "");
}

}  // namespace

bool StartRuntime(bool gc_at_end) {
  const char* why = nullptr;
  bool found = FindRuntimeSymbols(&why);
  for (const CapabilityRow& row : kCapabilities) ReportCapability(row, why);
  if (!found) return false;
  ForgetCollections();
  PrepareEndOfProcess(gc_at_end);
  PrepareScopes();
  __atomic_store_n(&g_started, true, __ATOMIC_RELEASE);
  return true;
}

bool RuntimeStarted() { return __atomic_load_n(&g_started, __ATOMIC_ACQUIRE); }
void RuntimeForked() { __atomic_store_n(&g_started, false, __ATOMIC_RELEASE); }
bool IsCodeOfNode(uint64_t address) { return IsNodeCode(address); }

}  // namespace nodeleak::preload::v8
