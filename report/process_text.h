// Outside node. A process in a few words, the same in every renderer.
#pragma once

#include <string>

#include "report/model.h"

namespace nodeleak::report {

std::string SignalName(int signal);                   // "SIGTERM"; "signal 99" for others
std::string EndingText(const ProcessInfo& process);   // "exited with code 1", "killed (recording as it stood)"
std::string CommandText(const ProcessInfo& process);  // "node server.js --port 80": basename first, printable

}  // namespace nodeleak::report
