#include "tracer/send_file.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace nodeleak::tracer {

namespace {

// Docker's and containerd's default profiles let it through for whoever has CAP_SYS_PTRACE.
std::string WhyNoDescriptor(int error) {
  if (error == EPERM || error == EACCES)
    return "a seccomp filter or a security module refuses pidfd_getfd to nodeleak: run it on the host, or give its "
           "container CAP_SYS_PTRACE (docker run --cap-add=SYS_PTRACE)";
  return absl::StrCat("pidfd_getfd: ", strerror(error), " (it needs Linux 5.6 or later)");
}

}  // namespace

absl::StatusOr<UniqueFd> SendFile(pid_t pid, int remote_socket, int file) {
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  UniqueFd socket(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), remote_socket, 0)));
  if (!socket.valid())
    return absl::FailedPreconditionError(absl::StrCat("cannot hand over the recording file: ", WhyNoDescriptor(errno)));
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
