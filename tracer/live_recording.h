// Outside. The recording of a process that runs, and the requests that it takes (recording::Mailbox).
//
// Before anything is written: the recording names a process, that process runs (same pid, same start), and has this
// very file mapped. Then only the mailbox is written, by one of us at a time.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "recording/layout.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {

// "4242" that is no file: the recording of that process; anything else is a path already.
absl::StatusOr<std::string> RecordingOf(const std::string& pid_or_path);

class LiveRecording {
 public:
  // The header, if its process can be asked as far as the file itself tells; errors say why not.
  static absl::StatusOr<recording::Header> Peek(const std::string& path);
  // Errors say why the process of `path` cannot be asked.
  static absl::StatusOr<LiveRecording> Open(const std::string& path);
  LiveRecording(LiveRecording&& other) noexcept;
  LiveRecording& operator=(LiveRecording&&) = delete;
  ~LiveRecording();

  uint32_t pid() const { return header_.pid; }
  const recording::Header& header() const { return header_; }  // as it was when it was opened
  // Its name that stays right when the file is renamed.
  std::string path() const;

  // Asks, and waits for the answer. Until this object goes, nobody else can ask, so what the answer says of the
  // recording can be read in peace. Errors: the process ended, is stopped, does not answer, or refuses.
  absl::Status Ask(recording::MailboxRequest kind, uint64_t argument);

 private:
  LiveRecording(UniqueFd fd, const recording::Header& header, void* page)
      : fd_(std::move(fd)), header_(header), page_(page) {}
  recording::Header* shared() const { return static_cast<recording::Header*>(page_); }
  absl::Status TakeTurn() const;
  absl::Status WaitForAnswer(uint32_t number) const;
  absl::Status CheckAlive() const;

  UniqueFd fd_;
  recording::Header header_;
  void* page_;  // the first one of the file
};

}  // namespace nodeleak::tracer
