// nodeleak attach and nodeleak detach.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/file_names.h"
#include "cli/growth_by_site.h"
#include "cli/live_line.h"
#include "recording/process.h"
#include "report/text_layout.h"
#include "tracer/attach.h"
#include "tracer/launch.h"
#include "tracer/unique_fd.h"

namespace nodeleak::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

absl::StatusOr<tracer::AttachTarget> FindTarget(const Invocation& invocation, absl::string_view verb) {
  int pid = 0;
  if (invocation.operands.size() != 1 || !absl::SimpleAtoi(invocation.operands[0], &pid) || pid <= 0)
    return absl::InvalidArgumentError(absl::StrCat("nodeleak ", invocation.command_name, " takes one process id, not '",
                                                   absl::StrJoin(invocation.operands, " "), "'"));
  return tracer::CheckAttachable(pid, verb);
}

// What ends an attach early. Blocked all the while: a second Ctrl-C must not cut the detaching short.
class EndSignals {
 public:
  EndSignals() {
    sigemptyset(&set_);
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &before_);
  }
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;
  ~EndSignals() {
    while (Came(milliseconds(0))) {
    }
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  bool Came(milliseconds patience) const {
    const timespec limit = {patience.count() / 1000, patience.count() % 1000 * 1'000'000};
    return sigtimedwait(&set_, nullptr, &limit) > 0;
  }

 private:
  sigset_t set_, before_;
};

// Until the time is over, somebody ends us, or the process is no longer recorded.
void Watch(const Settings& settings, const EndSignals& signals, GrowthBySite* growth, tracer::AttachSession* session) {
  constexpr milliseconds kTick(200);
  const auto begin = steady_clock::now();
  LiveLine line(!settings.quiet);
  for (;;) {
    const auto passed = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
    milliseconds nap = kTick;
    if (settings.duration_ms.has_value()) {
      const milliseconds left = milliseconds(*settings.duration_ms) - passed;
      if (left <= milliseconds(0)) return;
      nap = std::min(nap, left);
    }
    const tracer::AttachSession::Progress progress = session->Look();
    if (!progress.running) return;
    if (line.shown()) line.Show({passed, progress.live_blocks, progress.live_bytes}, growth->Look());
    if (signals.Came(nap)) return;
  }
}

// The value that `part` of them do not exceed.
double Milliseconds(const std::vector<std::chrono::microseconds>& sorted, double part) {
  const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(sorted.size())));
  return static_cast<double>(sorted[std::max<size_t>(rank, 1) - 1].count()) / 1000;
}

void SayPauses(std::vector<std::chrono::microseconds> pauses) {
  if (pauses.empty()) return;
  std::sort(pauses.begin(), pauses.end());
  Say(absl::StrFormat("the process stood still %d time%s: p50 %.1f ms, p95 %.1f ms, longest %.1f ms", pauses.size(),
                      pauses.size() == 1 ? "" : "s", Milliseconds(pauses, 0.5), Milliseconds(pauses, 0.95),
                      Milliseconds(pauses, 1)));
}

absl::StatusOr<tracer::AttachOptions> MakeOptions(const Settings& settings, const tracer::AttachTarget& target) {
  char directory[4096];
  if (getcwd(directory, sizeof directory) == nullptr)
    return absl::UnavailableError(absl::StrCat("cannot tell the current directory: ", strerror(errno)));
  absl::StatusOr<std::string> shim = tracer::FindShim();
  if (!shim.ok()) return shim.status();
  tracer::AttachOptions options;
  options.shim = *std::move(shim);
  const std::string program = target.executable.substr(target.executable.rfind('/') + 1);
  options.recording = ExpandFileName(RecordingTemplate(settings.output, directory),
                                     {static_cast<uint32_t>(target.pid), program, true}, false);
  options.max_recording_bytes = settings.max_recording_bytes;
  options.sample_bytes = settings.sample_bytes;
  options.trust_seccomp = settings.trust_seccomp;
  return options;
}

int Keep(const tracer::AttachTarget& target, const std::string& recording, tracer::AttachSession* session) {
  if (absl::Status status = session->Keep(); !status.ok()) return Trouble(status.message());
  Say(absl::StrCat("process ", target.pid, " is recorded from now on; read it with nodeleak report ", recording,
                   ", end it with nodeleak detach ", target.pid));
  return 0;
}

int Report(const Settings& settings, const std::string& recording, const std::string& root) {
  const bool left_for_later = settings.quiet && settings.reports.empty() && !settings.fail_on.has_value();
  if (left_for_later) return 0;
  return ExitStatus(ReportRecordings({recording}, settings, TextStream::kStdout, root), 0);
}

// Where the files of a process in a container are. Held open, they can be read when it has ended meanwhile.
class FilesOfTarget {
 public:
  explicit FilesOfTarget(const tracer::AttachTarget& target) {
    const std::string root = recording::RootOfProcess(static_cast<uint32_t>(target.pid), target.start_ticks);
    if (!root.empty()) fd_ = tracer::UniqueFd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  // "": ours.
  std::string root() const { return fd_.valid() ? absl::StrCat("/proc/self/fd/", fd_.get()) : ""; }

 private:
  tracer::UniqueFd fd_;
};

}  // namespace

int AttachCommand(const Invocation& invocation) {
  const Settings& settings = invocation.settings;
  if (absl::Status status = CheckReportFolders(settings); !status.ok()) return Trouble(status.message());
  const absl::StatusOr<tracer::AttachTarget> target = FindTarget(invocation, "attach to");
  if (!target.ok()) return Trouble(target.status().message());
  const absl::StatusOr<std::string> recorded = tracer::FindRecordingOf(*target);
  if (!recorded.ok()) return Trouble(recorded.status().message());
  if (!recorded->empty()) {
    Say(absl::StrCat("process ", target->pid, " is recorded already: this is what ", *recorded, " holds now"));
    return Report(settings, *recorded, "");
  }
  const absl::StatusOr<tracer::AttachOptions> options = MakeOptions(settings, *target);
  if (!options.ok()) return Trouble(options.status().message());
  if (!settings.quiet)
    for (const std::string& note : target->notes) Say(note);

  if (!settings.quiet && target->file_size_limit < settings.max_recording_bytes)
    Say(absl::StrCat("process ", target->pid, " may write no file larger than ",
                     report::FormatBytes(target->file_size_limit),
                     " (ulimit -f), so its recording has no more room than that"));

  const FilesOfTarget files(*target);
  const EndSignals signals;
  absl::StatusOr<tracer::AttachSession> session = tracer::AttachSession::Attach(*target, *options);
  if (!session.ok()) return Trouble(session.status().message());
  if (!settings.quiet)
    for (const std::string& note : session->notes()) Say(note);
  if (settings.keep && !settings.quiet) SayPauses(session->pauses());
  if (settings.keep) return Keep(*target, options->recording, &*session);
  if (!settings.quiet && !settings.duration_ms.has_value())
    Say(absl::StrCat("recording process ", target->pid, "; Ctrl-C ends it"));
  GrowthBySite growth(options->recording, files.root());
  Watch(settings, signals, &growth, &*session);
  const absl::Status detached = session->Detach(settings.gc_at_end);
  if (!settings.quiet) SayPauses(session->pauses());
  if (!detached.ok()) Say(detached.message());
  const int status = Report(settings, options->recording, files.root());
  return detached.ok() ? status : kExitTrouble;
}

int DetachCommand(const Invocation& invocation) {
  const absl::StatusOr<tracer::AttachTarget> target = FindTarget(invocation, "detach from");
  if (!target.ok()) return Trouble(target.status().message());
  const EndSignals signals;
  const absl::StatusOr<tracer::DetachResult> result = tracer::Detach(*target, invocation.settings.gc_at_end);
  if (!result.ok()) return Trouble(result.status().message());
  for (const std::string& note : result->notes) Say(note);
  if (!invocation.settings.quiet) SayPauses(result->pauses);
  if (!result->found) return Trouble(absl::StrCat("nothing of nodeleak is at work in process ", target->pid));
  Say(result->recording.empty()
          ? absl::StrCat("cleaned up what an earlier nodeleak left in process ", target->pid)
          : absl::StrCat("process ", target->pid, " is no longer recorded; read it with nodeleak report ",
                         result->recording));
  return 0;
}

}  // namespace nodeleak::cli
