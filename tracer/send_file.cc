#include "tracer/send_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tracer/proc_files.h"

namespace nodeleak::tracer {

namespace {

// Docker's and containerd's default profiles let it through for whoever has CAP_SYS_PTRACE.
std::string WhyNoDescriptor(int error) {
  if (error == EPERM || error == EACCES)
    return "a seccomp filter or a security module refuses pidfd_getfd to nodeleak: run it on the host, or give its "
           "container CAP_SYS_PTRACE (docker run --cap-add=SYS_PTRACE)";
  return absl::StrCat("pidfd_getfd: ", strerror(error), " (it needs Linux 5.6 or later)");
}

bool SeesTheSameProcesses(pid_t pid) {
  struct stat ours, theirs;
  return stat("/proc/self/ns/pid", &ours) == 0 && stat(ProcPath(pid, "ns/pid").c_str(), &theirs) == 0 &&
         ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

uint64_t InodeOf(int file) {
  struct stat status;
  return fstat(file, &status) == 0 ? status.st_ino : 0;
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

absl::StatusOr<OfferedFile> OfferFile(pid_t pid, int file) {
  if (!SeesTheSameProcesses(pid)) return absl::NotFoundError("it lives in another pid namespace");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ResourceExhaustedError(absl::StrCat("pipe: ", strerror(errno)));
  OfferedFile offered = {{}, UniqueFd(ends[0]), UniqueFd(ends[1])};
  offered.offer.pid = static_cast<uint32_t>(getpid());
  offered.offer.file = file;
  offered.offer.pipe = ends[0];
  offered.offer.file_inode = InodeOf(file);
  offered.offer.pipe_inode = InodeOf(ends[0]);
  return offered;
}

}  // namespace nodeleak::tracer
