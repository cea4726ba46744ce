#include <iterator>

#include "report/model.h"

namespace nodeleak::report {
namespace {

template <typename Enum, size_t kSize>
const char* NameIn(const char* const (&names)[kSize], Enum value) {
  const size_t index = static_cast<size_t>(value);
  return index < kSize ? names[index] : "unknown";
}

constexpr const char* kKindNames[] = {"array-buffer", "wasm-memory", "v8-heap",      "v8-internal", "node",  "openssl",
                                      "zlib",         "brotli",      "icu",          "ares",        "http2", "sqlite",
                                      "addon",        "libc",        "thread-stack", "mapping",     "native"};
static_assert(std::size(kKindNames) == static_cast<size_t>(Kind::kCount));
constexpr const char* kVerdictNames[] = {"growing", "lost",      "bounded",  "startup", "garbage",
                                         "pending", "allocator", "reserved", "new"};
static_assert(std::size(kVerdictNames) == static_cast<size_t>(Verdict::kNew) + 1);
constexpr const char* kConfidenceNames[] = {"high", "likely", "low"};
constexpr const char* kFrameTypeNames[] = {"js", "native", "wasm", "marker"};
constexpr const char* kEndingNames[] = {"exit", "signal", "killed", "running", "detached", "exec"};
constexpr const char* kCapabilityStateNames[] = {"full", "degraded", "absent"};

}  // namespace

const char* KindName(Kind kind) { return NameIn(kKindNames, kind); }
const char* VerdictName(Verdict verdict) { return NameIn(kVerdictNames, verdict); }
const char* ConfidenceName(Confidence confidence) { return NameIn(kConfidenceNames, confidence); }
const char* FrameTypeName(FrameType type) { return NameIn(kFrameTypeNames, type); }
const char* EndingName(Ending ending) { return NameIn(kEndingNames, ending); }
const char* CapabilityStateName(CapabilityState state) { return NameIn(kCapabilityStateNames, state); }

}  // namespace nodeleak::report
