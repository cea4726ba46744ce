// Outside node. A process in a few words, the same in every renderer.
#pragma once

#include <string>
#include <string_view>

#include "report/model.h"
#include "report/text_canvas.h"

namespace nodeleak::report {

std::string SignalName(int signal);                   // "SIGTERM"; "signal 99" for others
std::string EndingText(const ProcessInfo& process);   // "exited with code 1", "killed (recording as it stood)"
std::string CommandText(const ProcessInfo& process);  // "node server.js --port 80": basename first, printable

// "nodeleak: node app.js  (pid 4242)" in one line: `before` the command, which is shortened to fit.
void WriteTitle(std::string_view before, const ProcessInfo& process, TextCanvas* out);

}  // namespace nodeleak::report
