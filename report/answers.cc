#include "report/answers.h"

namespace nodeleak::report {
namespace {

double Milliseconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e6; }

std::string ThreadOf(const recording::Recording& recording, uint32_t isolate, const std::vector<std::string>& names) {
  if (isolate >= recording.isolates.size()) return "unknown";
  const uint32_t thread = recording.isolates[isolate].thread;
  return thread < names.size() ? names[thread] : "unknown";
}

}  // namespace

std::vector<IsolateAnswer> DescribeAnswers(const recording::Recording& recording,
                                           const std::vector<std::string>& thread_names) {
  std::vector<IsolateAnswer> answers;
  for (const recording::GcAnswer& row : recording.gc_answers) {
    IsolateAnswer answer;
    answer.thread = ThreadOf(recording, row.isolate, thread_names);
    answer.state = static_cast<recording::GcAnswerState>(row.state);
    answer.turns = row.turns;
    answer.by_interrupt = row.by_interrupt != 0;
    answer.waited_ms = Milliseconds(row.waited_ns);
    answer.first_pause_ms = Milliseconds(row.first_pause_ns);
    answer.second_pause_ms = Milliseconds(row.second_pause_ns);
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace nodeleak::report
