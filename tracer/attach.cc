#include "tracer/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "recording/layout.h"
#include "recording/process.h"
#include "tracer/attached_process.h"
#include "tracer/proc_files.h"
#include "tracer/seccomp_check.h"
#include "tracer/send_file.h"
#include "tracer/test_point.h"

namespace nodeleak::tracer {
namespace {

using recording::AttachControl;
using recording::AttachState;
using recording::Header;
using std::chrono::milliseconds;

constexpr milliseconds kStartPatience(20'000);  // reading V8's symbols on a busy machine
constexpr milliseconds kStopPatience(10'000);   // for a recorder whose nodeleak was killed to freeze, on a busy machine
constexpr milliseconds kCallPatience(5000), kCallLimit(5000);

// Its memory goes before it does: then it has no program any more.
bool HasMemory(pid_t pid) {
  char first;
  return readlink(ProcPath(pid, "exe").c_str(), &first, 1) >= 0 || errno != ENOENT;
}

absl::Status About(const AttachTarget& target, absl::string_view verb, const absl::Status& status) {
  if (status.ok()) return status;
  const bool runs =
      recording::IsProcessRunning(static_cast<uint32_t>(target.pid), target.start_ticks) && HasMemory(target.pid);
  return absl::Status(status.code(), absl::StrCat("cannot ", verb, " ", target.pid, ": ",
                                                  runs ? status.message() : "it has ended meanwhile"));
}

bool IsRecordingFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  uint64_t magic = 0;
  return fd.valid() && read(fd.get(), &magic, sizeof magic) == static_cast<ssize_t>(sizeof magic) &&
         magic == recording::kMagic;
}

bool WriteMagic(const UniqueFd& file) {
  return pwrite(file.get(), &recording::kMagic, sizeof recording::kMagic, 0) == sizeof recording::kMagic;
}

// Where the file system has files without a name: it gets its name when it says already what it is. Otherwise errno.
UniqueFd CreateWhole(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd nameless(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!nameless.valid() || !WriteMagic(nameless)) return UniqueFd();
  const std::string link = absl::StrCat("/proc/self/fd/", nameless.get());
  ReachTestPoint("file made");
  if (linkat(AT_FDCWD, link.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) return UniqueFd();
  return UniqueFd(open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));  // by its name, which /proc/PID/maps shows
}

UniqueFd CreateInSteps(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid() || WriteMagic(fd)) return fd;
  const int error = errno;
  unlink(path.c_str());
  errno = error;
  return UniqueFd();
}

// A new file that only we may read. One that is there is replaced only when it is a recording, and never emptied:
// somebody may be reading it. It says from the beginning what it will be: should we be killed before the recorder has
// written its header, the next attach may replace it.
absl::StatusOr<UniqueFd> CreateRecording(const std::string& path) {
  for (bool again : {false, true}) {
    UniqueFd fd = CreateWhole(path);
    if (!fd.valid() && errno != EEXIST) fd = CreateInSteps(path);
    if (fd.valid()) return fd;
    if (errno != EEXIST || again)
      return absl::UnavailableError(absl::StrCat("cannot create the recording ", path, ": ", strerror(errno)));
    if (!IsRecordingFile(path))
      return absl::FailedPreconditionError(
          absl::StrCat("the file ", path, " is there and is not a recording; choose another --output"));
    unlink(path.c_str());
  }
  return absl::InternalError("not reached");
}

template <typename T>
void WriteField(int fd, size_t offset, T value) {
  const ssize_t ignored = pwrite(fd, &value, sizeof value, static_cast<off_t>(offset));
  static_cast<void>(ignored);
}

}  // namespace

class AttachSession::Impl {
 public:
  Impl(std::unique_ptr<AttachedProcess> process, UniqueFd file, std::string path)
      : process_(std::move(process)), file_(std::move(file)), path_(std::move(path)) {}

  absl::Status Begin(const AttachOptions& options) {
    absl::Status status = StartAndHook(options);
    if (!status.ok()) {
      socket_.Reset();
      const absl::Status ignored = process_->CleanUp();
      static_cast<void>(ignored);
      return status;
    }
    if (!IsNode()) return absl::OkStatus();
    process_->MeetIsolates();
    process_->MeetTheOthersIfDue();
    return absl::OkStatus();
  }

  Progress Look() {
    TracedThread::LetGoOfLatecomers();
    if (IsNode()) process_->MeetTheOthersIfDue();
    Progress progress;
    Header header;
    const absl::StatusOr<AttachState> state = process_->State();
    progress.running = state.ok() && *state == AttachState::kRecording;
    if (pread(file_.get(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header)) {
      progress.live_bytes = header.live_bytes;
      progress.live_blocks = header.live_blocks;
    }
    return progress;
  }

  absl::Status Detach(bool collect) {
    if (!IsThere()) {
      NoteEnd();
      return absl::OkStatus();
    }
    if (IsNode()) NoteCollection(collect);
    socket_.Reset();  // wakes the recorder: it stops
    return process_->CleanUp();
  }

  absl::Status Keep() {
    if (absl::Status status = process_->shim().WriteKeep(true); !status.ok()) return status;
    socket_.Reset();
    return absl::OkStatus();
  }

  AttachedProcess& process() { return *process_; }

 private:
  absl::Status StartAndHook(const AttachOptions& options) {
    if (absl::Status status = StartShim(options); !status.ok()) return status;
    // The process may live in a pid namespace of its own; here its pid is what we know it by.
    WriteField(file_.get(), offsetof(Header, pid), static_cast<uint32_t>(process_->target().pid));
    ReachTestPoint("recording");
    return process_->InstallHooks();
  }

  absl::Status StartShim(const AttachOptions& options) {
    const ShimInProcess& shim = process_->shim();
    absl::StatusOr<AttachControl> control = shim.ReadControl();
    if (!control.ok()) return control.status();
    control->max_recording_bytes = options.max_recording_bytes;
    control->sample_bytes = options.sample_bytes;
    const RemoteObject* allocator = process_->objects().FindDefinition("malloc", &shim.object());
    control->other_allocator = allocator != nullptr && !absl::StartsWith(allocator->BaseName(), "libc.so") ? 1 : 0;
    strncpy(control->recording_path, path_.c_str(), sizeof control->recording_path - 1);
    strncpy(control->shim_path, options.shim.c_str(), sizeof control->shim_path - 1);
    if (absl::Status status = shim.WriteSettings(*control); !status.ok()) return status;
    const absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(process_->memory(), process_->objects(), &shim);
    if (!caller.ok()) return caller.status();
    const absl::StatusOr<std::vector<uint64_t>> started =
        caller->Call({RemoteStep::Call(shim.start(), {})}, Borrow::Idle(), kCallPatience, kCallLimit);
    if (!started.ok()) return started.status();
    if (const int error = static_cast<int>((*started)[0]); error != 0)
      return absl::UnavailableError(absl::StrCat("its recorder cannot start a thread: ", strerror(error)));
    ReachTestPoint("recorder started");
    if (absl::Status status = process_->PlanHooks(); !status.ok()) return status;
    return HandOver(shim);
  }

  absl::Status HandOver(const ShimInProcess& shim) {
    absl::StatusOr<AttachControl> control = shim.AwaitLeaving({AttachState::kStarting}, kStartPatience);
    if (!control.ok()) return control.status();
    std::string besides;
    if (control->state == static_cast<uint32_t>(AttachState::kWantsFile)) {
      UniqueFd pipe;  // until it has been opened there
      if (absl::Status status = GiveFile(shim, control->file_socket, &pipe, &besides); !status.ok()) return status;
      ReachTestPoint("file sent");
      control = shim.AwaitLeaving({AttachState::kWantsFile}, kStartPatience);
      if (!control.ok()) return control.status();
    }
    if (control->state == static_cast<uint32_t>(AttachState::kRecording)) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(
        "its recorder did not start: ", control->why[0] != '\0' ? control->why : "it does not answer", besides));
  }

  absl::Status GiveFile(const ShimInProcess& shim, int file_socket, UniqueFd* pipe, std::string* besides) {
    absl::StatusOr<UniqueFd> socket = SendFile(process_->target().pid, file_socket, file_.get());
    if (socket.ok()) {
      socket_ = *std::move(socket);
      return absl::OkStatus();
    }
    absl::StatusOr<OfferedFile> offered = OfferFile(process_->target().pid, file_.get());
    if (!offered.ok() || !absl::IsFailedPrecondition(socket.status())) return socket.status();
    *besides = absl::StrCat("; ", socket.status().message());
    *pipe = std::move(offered->pipe);
    socket_ = std::move(offered->other_end);
    return shim.WriteOffer(offered->offer);
  }

  bool IsNode() const {
    Header header;
    return pread(file_.get(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header) &&
           (header.flags & recording::kIsNode) != 0;
  }

  // The process is the one that we attached to, and still the same program.
  bool IsThere() const {
    const AttachTarget& target = process_->target();
    return recording::IsProcessRunning(static_cast<uint32_t>(target.pid), target.start_ticks) &&
           process_->shim().ReadControl().ok();
  }

  // It is gone, or another program now. What the recorder wrote itself stands.
  void NoteEnd() {
    const AttachTarget& target = process_->target();
    Header header;
    if (pread(file_.get(), &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header)) return;
    const bool runs = recording::IsProcessRunning(static_cast<uint32_t>(target.pid), target.start_ticks);
    if (runs && header.freeze_reason == static_cast<uint32_t>(recording::FreezeReason::kNone))
      WriteField(file_.get(), offsetof(Header, freeze_reason), static_cast<uint32_t>(recording::FreezeReason::kExec));
  }

  void NoteCollection(bool collect) {
    recording::GcAtEnd done = recording::GcAtEnd::kOff;
    if (collect) {
      const absl::StatusOr<bool> collected = process_->Collect();
      done = collected.value_or(false) ? recording::GcAtEnd::kDone : recording::GcAtEnd::kNotReachable;
    }
    if (done != recording::GcAtEnd::kDone)  // the recorder has said so itself
      WriteField(file_.get(), offsetof(Header, gc_at_end), static_cast<uint32_t>(done));
  }

  std::unique_ptr<AttachedProcess> process_;
  UniqueFd file_;
  std::string path_;
  UniqueFd socket_;  // or a pipe; its other end tells the recorder that we are there
};

AttachSession::AttachSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AttachSession::AttachSession(AttachSession&&) noexcept = default;
AttachSession& AttachSession::operator=(AttachSession&&) noexcept = default;
AttachSession::~AttachSession() = default;

namespace {

// The recording is written in the process, under its limit; the memory files of the libraries here, under ours.
absl::Status CheckFileSizeLimit(const AttachTarget& target) {
  constexpr rlim_t kLibraries = 8 << 20;
  rlimit own;
  if (getrlimit(RLIMIT_FSIZE, &own) == 0 && own.rlim_cur < kLibraries)
    return absl::FailedPreconditionError(absl::StrCat("nodeleak itself may write no file larger than ", own.rlim_cur,
                                                      " bytes (ulimit -f); run it with a limit of 8 MiB at least"));
  if (target.file_size_limit >= recording::kLeastRecordingBytes) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("it may write no file larger than ", target.file_size_limit,
                   " bytes (ulimit -f), and a recording needs at least 1 MiB; raise that with prlimit --pid ",
                   target.pid, " --fsize=BYTES"));
}

// What an earlier nodeleak left there, or a reason not to touch it.
absl::Status MakeReady(AttachedProcess* process, const std::string& shim_path) {
  if (!process->has_shim()) {
    if (absl::Status status = process->Inject(shim_path); !status.ok()) return status;
    ReachTestPoint("library loaded");
    return absl::OkStatus();
  }
  absl::StatusOr<AttachControl> control = process->shim().ReadControl();
  // The process is ours, so the nodeleak that began this has gone; its recorder is about to stop.
  if (control.ok() && control->keep == 0)
    control = process->shim().AwaitLeaving({AttachState::kRecording}, kStopPatience);
  if (!control.ok()) return control.status();
  const absl::StatusOr<AttachState> state = process->State();
  if (!state.ok()) return state.status();
  if (*state == AttachState::kPreloaded)
    return absl::FailedPreconditionError(
        "it was started under nodeleak; its recording can be read with nodeleak report");
  if (*state == AttachState::kRecording)
    return absl::FailedPreconditionError(absl::StrCat("it is being recorded already, into ", control->recording_path,
                                                      " (read it with nodeleak report; nodeleak detach ends it)"));
  return process->CleanUp();
}

}  // namespace

absl::StatusOr<AttachSession> AttachSession::Attach(const AttachTarget& target, const AttachOptions& options) {
  absl::StatusOr<std::unique_ptr<AttachedProcess>> process = AttachedProcess::Open(target);
  if (!process.ok()) return About(target, "attach to", process.status());
  if (absl::Status status = CheckFileSizeLimit(target); !status.ok()) return About(target, "attach to", status);
  if (absl::Status status = CheckSeccompFilters(target.pid, options.trust_seccomp); !status.ok())
    return About(target, "attach to", status);
  if (absl::Status status = MakeReady(process->get(), options.shim); !status.ok())
    return About(target, "attach to", status);
  absl::StatusOr<UniqueFd> file = CreateRecording(options.recording);
  if (!file.ok()) return file.status();
  auto impl = std::make_unique<Impl>(*std::move(process), *std::move(file), options.recording);
  if (absl::Status status = impl->Begin(options); !status.ok()) {
    unlink(options.recording.c_str());
    return About(target, "attach to", status);
  }
  return AttachSession(std::move(impl));
}

AttachSession::Progress AttachSession::Look() { return impl_->Look(); }
absl::Status AttachSession::Detach(bool collect) {
  return About(impl_->process().target(), "detach from", impl_->Detach(collect));
}
absl::Status AttachSession::Keep() { return impl_->Keep(); }
const std::vector<std::string>& AttachSession::notes() const { return impl_->process().notes(); }
const std::vector<std::chrono::microseconds>& AttachSession::pauses() const { return impl_->process().pauses(); }

absl::StatusOr<DetachResult> Detach(const AttachTarget& target, bool collect) {
  absl::StatusOr<std::unique_ptr<AttachedProcess>> process = AttachedProcess::Open(target);
  if (!process.ok()) return About(target, "detach from", process.status());
  DetachResult result;
  if (!(*process)->has_shim()) return result;
  const absl::StatusOr<AttachState> state = (*process)->State();
  if (!state.ok()) return About(target, "detach from", state.status());
  if (*state == AttachState::kPreloaded)
    return absl::FailedPreconditionError(
        absl::StrCat("cannot detach from ", target.pid, ": it was started under nodeleak and is recorded to its end"));
  const absl::StatusOr<AttachControl> control = (*process)->shim().ReadControl();
  if (!control.ok()) return About(target, "detach from", control.status());
  result.found = *state != AttachState::kInert || MayBeHooked(*control);
  if (*state == AttachState::kRecording) {
    result.recording = control->recording_path;
    if (collect) {
      const absl::StatusOr<bool> ignored = (*process)->Collect();
      static_cast<void>(ignored);
    }
  }
  if (absl::Status status = (*process)->CleanUp(); !status.ok()) return About(target, "detach from", status);
  result.notes = (*process)->notes();
  result.pauses = (*process)->pauses();
  return result;
}

absl::StatusOr<std::string> FindRecordingOf(const AttachTarget& target) {
  absl::StatusOr<std::unique_ptr<AttachedProcess>> process = AttachedProcess::Open(target);
  if (!process.ok()) return About(target, "attach to", process.status());
  if (!(*process)->has_shim()) return std::string();
  const absl::StatusOr<AttachControl> control = (*process)->shim().ReadControl();
  const absl::StatusOr<AttachState> state = (*process)->State();
  if (!control.ok() || !state.ok()) return std::string();
  if (*state == AttachState::kRecording && control->keep != 0) return std::string(control->recording_path);
  if (*state != AttachState::kPreloaded) return std::string();
  // As the process has it mapped; it may have been started in another mount namespace.
  for (const Mapping& mapping : ReadMappings(target.pid)) {
    const bool shared_file = mapping.permissions == "rw-s" && absl::StartsWith(mapping.path, "/");
    if (shared_file && IsRecordingFile(mapping.path)) return mapping.path;
    const std::string inside = ProcPath(target.pid, absl::StrCat("root", mapping.path));
    if (shared_file && IsRecordingFile(inside)) return inside;
  }
  return std::string();
}

}  // namespace nodeleak::tracer
