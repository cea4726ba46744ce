// Outside. Looks at a program before it is started: can the shim be loaded into it at all? LD_PRELOAD is silently
// ignored by the kernel and the dynamic linker in all the cases told apart here, so the person must hear it from us.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nodeleak::tracer {

// The file that exec would run: names with a slash as they are, others by PATH. Errors: "cannot run foo: ...".
absl::StatusOr<std::string> FindProgram(const std::string& name);

// OkStatus when the program at `path` (for a script: its interpreter, and so on) is a dynamically linked x86-64 glibc
// program that keeps LD_PRELOAD. A file that nobody understands is fine here: exec will say what it thinks of it.
absl::Status CheckPreloadable(const std::string& path);

// The interpreter of a script's first line, without "/usr/bin/env" and its options: "#!/usr/bin/env -S node --x" is
// "node". Empty: not a script.
std::string ParseScriptInterpreter(absl::string_view first_bytes);

}  // namespace nodeleak::tracer
