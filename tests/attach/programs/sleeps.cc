// One thread that sleeps again and again in the system call that is named, a fifth of a second each. Whoever borrows it
// must not be seen: no sleep fails with EINTR or ends early. Says "ready"; when its stdin ends, how many sleeps, how
// many failed, how many were short.   sleeps NAME_OF_A_ROW
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr long kSleepNs = 200'000'000;

bool Nanosleep() {
  const timespec time = {0, kSleepNs};
  return nanosleep(&time, nullptr) == 0;
}

bool Poll() {
  static int ends[2];
  static const bool open = pipe(ends) == 0;
  pollfd never = {ends[0], POLLIN, 0};
  return open && poll(&never, 1, kSleepNs / 1'000'000) == 0;
}

bool Condition() {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += kSleepNs;
  if (until.tv_nsec >= 1'000'000'000) {
    until.tv_nsec -= 1'000'000'000;
    ++until.tv_sec;
  }
  pthread_mutex_lock(&mutex);
  const int result = pthread_cond_timedwait(&condition, &mutex, &until);
  pthread_mutex_unlock(&mutex);
  return result == ETIMEDOUT;
}

// These sleep until another process does something: a child, after the time.
template <typename Wait, typename Wake>
bool UntilChild(Wait wait, Wake wake) {
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    Nanosleep();
    wake(parent);
    _exit(0);
  }
  const bool done = child > 0 && wait();
  return waitpid(child, nullptr, 0) == child || (done && errno == ECHILD) ? done : false;
}

bool Wait() {
  return UntilChild([] { return wait(nullptr) > 0; }, [](pid_t) {});
}

void Nothing(int) {}

// Both end by a signal, so EINTR is right.
bool Pause(int (*sleep)(const sigset_t*)) {
  sigset_t usr, before;
  sigemptyset(&usr);
  sigaddset(&usr, SIGUSR1);
  struct sigaction action = {};
  action.sa_handler = Nothing;
  sigaction(SIGUSR1, &action, nullptr);
  sigprocmask(SIG_BLOCK, &usr, &before);
  const bool done =
      UntilChild([&] { return sleep(&before) == -1 && errno == EINTR; }, [](pid_t parent) { kill(parent, SIGUSR1); });
  sigset_t now;
  sigprocmask(SIG_SETMASK, nullptr, &now);
  return done && sigismember(&now, SIGUSR1) == 1;
}
bool Sigsuspend() { return Pause(sigsuspend); }

bool Accept() {
  static const int listener = [] {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un any = {AF_UNIX, ""};
    bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any.sun_family);  // the kernel chooses a name
    listen(fd, 5);
    return fd;
  }();
  return UntilChild([] { return close(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) == 0; },
                    [](pid_t) {
                      sockaddr_un address;
                      socklen_t bytes = sizeof address;
                      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &bytes);
                      const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
                      connect(fd, reinterpret_cast<sockaddr*>(&address), bytes);
                    });
}

template <ssize_t (*receive)(int)>
bool Receive() {
  static int ends[2];
  static const bool open = socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0;
  return open && UntilChild([] { return receive(ends[0]) == 1; }, [](pid_t) { send(ends[1], "x", 1, 0); });
}
ssize_t ReceiveFrom(int fd) {
  char byte;
  return recv(fd, &byte, 1, 0);
}
ssize_t ReceiveMessage(int fd) {
  char byte;
  iovec data = {&byte, 1};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  return recvmsg(fd, &message, 0);
}

struct Row {
  const char* name;
  bool (*sleep)();
};
constexpr Row kRows[] = {
    {"nanosleep", Nanosleep}, {"poll", Poll},     {"condition", Condition},       {"sigsuspend", Sigsuspend},
    {"wait", Wait},           {"accept", Accept}, {"recv", Receive<ReceiveFrom>}, {"recvmsg", Receive<ReceiveMessage>}};

long Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

int main(int count, char** arguments) {
  const Row* row = nullptr;
  for (const Row& candidate : kRows)
    if (count > 1 && strcmp(arguments[1], candidate.name) == 0) row = &candidate;
  if (row == nullptr) return 2;
  long sleeps = 0, failed = 0, early = 0;
  puts("ready");
  fflush(stdout);
  for (pollfd end = {0, POLLIN, 0}; poll(&end, 1, 0) == 0; ++sleeps) {
    const long begin = Now();
    if (!row->sleep()) ++failed;
    if (Now() - begin < kSleepNs - 1'000'000) ++early;
  }
  printf("sleeps %ld\nfailed %ld\nearly %ld\n", sleeps, failed, early);
  return failed + early != 0 ? 1 : 0;
}
