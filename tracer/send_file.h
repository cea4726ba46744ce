// Outside. Gives an open file to another process that waits for it at one end of a socket pair of its own.
#pragma once

#include <sys/types.h>

#include "absl/status/statusor.h"
#include "recording/attach_control.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {

// Takes a copy of descriptor `remote_socket` out of the process's table (pidfd_getfd, Linux 5.6) and sends `file` over
// it. The socket that is returned is our end: the process sees when it is closed, and so when we die.
absl::StatusOr<UniqueFd> SendFile(pid_t pid, int remote_socket, int file);

// Where that is refused: what the process can open below /proc by itself. NotFound: it sees other processes than we do.
struct OfferedFile {
  recording::AttachOffer offer;
  UniqueFd pipe;       // to be kept until the process has opened it
  UniqueFd other_end;  // as the socket above
};
absl::StatusOr<OfferedFile> OfferFile(pid_t pid, int file);

}  // namespace nodeleak::tracer
