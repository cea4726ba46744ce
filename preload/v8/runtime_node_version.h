// Runs inside node, once, when the main isolate is registered.
#pragma once

namespace nodeleak::preload::v8 {

// Tells the recorder the versions of node and V8.
void ReportNodeVersion();

}  // namespace nodeleak::preload::v8
