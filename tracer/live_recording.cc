#include "tracer/live_recording.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "recording/process.h"
#include "recording/raw_reader.h"
#include "tracer/find_recording.h"

namespace nodeleak::tracer {
namespace {

using recording::Header;
using recording::Mailbox;
using recording::MailboxResult;

constexpr long kLookMs = 100;             // between looks whether the process is still there
constexpr int64_t kTakenMs = 20'000;      // for its nodeleak thread to begin; milliseconds when it is not starved
constexpr int64_t kAnsweredMs = 120'000;  // it limits itself to less
constexpr int64_t kTurnMs = 150'000;      // for others to be done

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}
void Nap(long ms) {
  const timespec pause = {ms / 1000, ms % 1000 * 1'000'000};
  nanosleep(&pause, nullptr);
}

void FutexWait(const uint32_t* word, uint32_t expected, long ms) {
  const timespec timeout = {ms / 1000, ms % 1000 * 1'000'000};
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

struct RefusalRow {
  MailboxResult result;
  const char* sentence;
};
constexpr RefusalRow kRefusals[] = {
    {MailboxResult::kUnknownKind, "it was started by a nodeleak that cannot do this"},
    {MailboxResult::kNoV8, "there is no V8 in it that nodeleak knows"},
    {MailboxResult::kNoForcedGc, "its V8 does not export LowMemoryNotification"},
    {MailboxResult::kNoMainIsolate,
     "its main thread has not come to its event loop yet, or has no JavaScript any more"},
    {MailboxResult::kEnding, "it is ending, and collects for its last picture"},
    {MailboxResult::kNoRoom, "its recording has no room for the answer (--max-recording)"},
};
const char* Sentence(MailboxResult result) {
  for (const RefusalRow& row : kRefusals)
    if (row.result == result) return row.sentence;
  return "it does not say why";
}

// The same file from here, also when the process lives in another mount namespace.
std::string FromHere(uint32_t pid, const std::string& path) {
  const std::string inside = absl::StrCat("/proc/", pid, "/root", path);
  return access(inside.c_str(), F_OK) == 0 ? inside : path;
}

bool SameFile(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

absl::Status CheckMapped(uint32_t pid, int fd) {
  const std::optional<std::vector<std::string>> files = SharedFilesOf(pid);
  if (!files.has_value())
    return absl::NotFoundError(absl::StrCat("cannot look into process ", pid, ": ", strerror(errno)));
  struct stat ours;
  if (fstat(fd, &ours) != 0) return absl::ErrnoToStatus(errno, "cannot look at the recording");
  for (const std::string& file : *files) {
    struct stat there;
    if (stat(FromHere(pid, file).c_str(), &there) == 0 && SameFile(ours, there)) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("process ", pid, " does not write this file (is it a copy? ask by pid instead)"));
}

absl::Status CheckCanAnswer(const Header& header) {
  if ((header.flags & recording::kIsSnapshot) != 0)
    return absl::FailedPreconditionError("it is a copy, no process writes it: ask by pid instead");
  if (!recording::IsProcessRunning(header.pid, header.process_start_ticks))
    return absl::FailedPreconditionError(absl::StrCat("its process ", header.pid, " has ended"));
  if (header.state != static_cast<uint32_t>(recording::ProcessState::kRecording))
    return absl::FailedPreconditionError(
        absl::StrCat("process ", header.pid, " no longer records: its picture is already taken"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> RecordingOf(const std::string& pid_or_path) {
  const std::optional<uint32_t> pid = AsPid(pid_or_path);
  return pid.has_value() ? FindRecordingOfProcess(*pid) : pid_or_path;
}

absl::StatusOr<Header> LiveRecording::Peek(const std::string& path) {
  absl::StatusOr<recording::FileSource> source = recording::FileSource::Open(path);
  if (!source.ok()) return source.status();
  absl::StatusOr<Header> header = recording::ReadHeader(*source);
  if (!header.ok()) return header.status();
  if (absl::Status status = CheckCanAnswer(*header); !status.ok()) return status;
  return header;
}

absl::StatusOr<LiveRecording> LiveRecording::Open(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "cannot open it");
  absl::StatusOr<Header> header = Peek(absl::StrCat("/proc/self/fd/", fd.get()));
  if (!header.ok()) return header.status();
  if (absl::Status status = CheckMapped(header->pid, fd.get()); !status.ok()) return status;
  void* page = mmap(nullptr, recording::kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) return absl::ErrnoToStatus(errno, "cannot map it");
  return LiveRecording(std::move(fd), *header, page);
}

LiveRecording::LiveRecording(LiveRecording&& other) noexcept
    : fd_(std::move(other.fd_)), header_(other.header_), page_(std::exchange(other.page_, nullptr)) {}

LiveRecording::~LiveRecording() {
  if (page_ != nullptr) munmap(page_, recording::kPageBytes);
}

std::string LiveRecording::path() const { return absl::StrCat("/proc/self/fd/", fd_.get()); }

absl::Status LiveRecording::CheckAlive() const {
  if (!recording::IsProcessRunning(header_.pid, header_.process_start_ticks))
    return absl::UnavailableError(absl::StrCat("process ", pid(), " ended before it could answer"));
  const uint32_t state = __atomic_load_n(&shared()->state, __ATOMIC_ACQUIRE);
  if (state != static_cast<uint32_t>(recording::ProcessState::kRecording))
    return absl::UnavailableError(absl::StrCat("process ", pid(), " is ending: its picture is already taken"));
  const char letter = recording::ProcessStateLetter(pid());
  if (letter == 'T' || letter == 't')
    return absl::UnavailableError(
        absl::StrCat("process ", pid(), " is stopped (kill -CONT ", pid(), " lets it go on)"));
  return absl::OkStatus();
}

// One request at a time: a lock on the file, which goes with its holder, however that ends. What a killed one asked for
// is answered first.
absl::Status LiveRecording::TakeTurn() const {
  const int64_t give_up = NowMs() + kTurnMs;
  while (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return absl::ErrnoToStatus(errno, "cannot lock the recording");
    if (absl::Status status = CheckAlive(); !status.ok()) return status;
    if (NowMs() > give_up)
      return absl::UnavailableError(absl::StrCat("another nodeleak is still asking process ", pid(), " for something"));
    constexpr long kNapMs = 10;
    Nap(kNapMs);
  }
  return WaitForAnswer(__atomic_load_n(&shared()->mailbox.request, __ATOMIC_ACQUIRE));
}

absl::Status LiveRecording::WaitForAnswer(uint32_t number) const {
  const Mailbox& mailbox = shared()->mailbox;
  const int64_t start = NowMs();
  for (;;) {
    const uint32_t answered = __atomic_load_n(&mailbox.answered, __ATOMIC_ACQUIRE);
    if (answered == number) return absl::OkStatus();
    if (absl::Status status = CheckAlive(); !status.ok()) return status;
    const bool taken = __atomic_load_n(&mailbox.taken, __ATOMIC_ACQUIRE) == number;
    if (NowMs() - start > (taken ? kAnsweredMs : kTakenMs)) {
      return absl::UnavailableError(
          absl::StrCat("process ", pid(), " does not answer: its nodeleak thread does not run (is it frozen?)"));
    }
    FutexWait(&mailbox.answered, answered, kLookMs);
  }
}

absl::Status LiveRecording::Ask(recording::MailboxRequest kind, uint64_t argument) {
  if (absl::Status status = CheckAlive(); !status.ok()) return status;
  if (absl::Status status = TakeTurn(); !status.ok()) return status;
  Mailbox& mailbox = shared()->mailbox;
  const uint32_t number = __atomic_load_n(&mailbox.request, __ATOMIC_RELAXED) + 1;
  mailbox.argument = argument;
  __atomic_store_n(&mailbox.kind, static_cast<uint32_t>(kind), __ATOMIC_RELAXED);
  __atomic_store_n(&mailbox.request, number, __ATOMIC_RELEASE);
  __atomic_add_fetch(&mailbox.bell, 1u, __ATOMIC_RELEASE);
  syscall(SYS_futex, &mailbox.bell, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
  if (absl::Status status = WaitForAnswer(number); !status.ok()) return status;
  const auto result = static_cast<MailboxResult>(mailbox.result);
  if (result == MailboxResult::kDone) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("process ", pid(), " refuses: ", Sentence(result)));
}

}  // namespace nodeleak::tracer
