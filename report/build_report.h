// Outside node. BuildReport with native names from wherever the caller says; for tests.
#pragma once

#include "report/frames.h"
#include "report/report.h"

namespace nodeleak::report {

absl::StatusOr<Report> BuildReportWithNames(const recording::Recording& recording, const ReportOptions& options,
                                            const NativeNames& names);

}  // namespace nodeleak::report
