#include "tracer/send_file.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace nodeleak::tracer {

absl::StatusOr<UniqueFd> SendFile(pid_t pid, int remote_socket, int file) {
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  UniqueFd socket(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), remote_socket, 0)));
  if (!socket.valid())
    return absl::FailedPreconditionError(absl::StrCat("cannot reach descriptor ", remote_socket, " of process ", pid,
                                                      ": ", strerror(errno), " (this needs Linux 5.6 or later)"));
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof file)] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof file);
  memcpy(CMSG_DATA(header), &file, sizeof file);
  if (sendmsg(socket.get(), &message, MSG_NOSIGNAL) != 1)
    return absl::UnavailableError(
        absl::StrCat("cannot send the recording file to process ", pid, ": ", strerror(errno)));
  return socket;
}

}  // namespace nodeleak::tracer
