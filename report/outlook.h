// Outside node. When the container's memory limit is reached if what grows goes on like this.
#pragma once

#include "report/model.h"

namespace nodeleak::report {

// From the limit and its use in report->memory: fills in Report::outlook and each growing group's own time.
void AddOutlook(Report* report);

}  // namespace nodeleak::report
