#include "preload/v8/runtime_node_version.h"

#include "preload/base/safe_read.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/runtime_symbols.h"

namespace nodeleak::preload::v8 {
namespace {

// libstdc++'s std::string. node::per_process::metadata begins with one: versions.node (src/node_metadata.h, the same
// in node 18 to 26).
struct StdString {
  uint64_t data, length;
};
constexpr uint64_t kMaxVersionBytes = 40;

bool IsVersion(const char* text) { return text[0] >= '1' && text[0] <= '9'; }

}  // namespace

void ReportNodeVersion() {
  char version[kMaxVersionBytes + 2] = "v";
  StdString text;
  bool read = SafeRead(reinterpret_cast<uint64_t>(symbols().node_metadata), &text, sizeof text) &&
              text.length <= kMaxVersionBytes && SafeRead(text.data, version + 1, text.length);
  if (!read || !IsVersion(version + 1)) version[0] = '\0';
  SetVersions(version, symbols().get_version());
}

}  // namespace nodeleak::preload::v8
