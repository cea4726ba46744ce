// Outside node. A stack as lines of text: name left, place right, runs of node's own JavaScript and of machinery
// folded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/model.h"

namespace nodeleak::report {

// "addon.node", "node": the file name, printable.
std::string ModuleText(std::string_view module);

// One frame's place: "server.js:12:20", "addon.cc:88", "node +0x12ab".
std::string PlaceText(const Frame& frame, std::string_view directory, int columns);
std::string NameText(const Frame& frame);

std::vector<std::string> RenderStackLines(const std::vector<Frame>& frames, std::string_view directory, int columns);

}  // namespace nodeleak::report
