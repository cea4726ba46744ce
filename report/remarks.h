// Outside node. What a reader should know about a group beside its verdict.
#pragma once

#include <string>
#include <vector>

#include "report/classify.h"
#include "report/model.h"

namespace nodeleak::report {

// Sentences; `heaviest` is the stack that holds most of the group.
std::vector<std::string> RemarksOn(const Group& group, const StackView& heaviest);

}  // namespace nodeleak::report
