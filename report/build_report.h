// Outside node. BuildReport and SummarizeRecording with native names from wherever the caller says; for tests.
#pragma once

#include "report/frames.h"
#include "report/report.h"

namespace nodeleak::report {

absl::StatusOr<Report> BuildReportWithNames(const recording::Recording& recording, const ReportOptions& options,
                                            const NativeNames& names);

ProcessSummary SummarizeRecordingWithNames(const recording::Recording& recording, std::string recording_path,
                                           const std::string& root, const NativeNames& names);

}  // namespace nodeleak::report
