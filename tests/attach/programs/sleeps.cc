// One thread that sleeps again and again in the system call that is named, a fifth of a second each. Whoever borrows it
// must not be seen: no sleep fails with EINTR or ends early. Says "ready"; when its stdin ends, how many sleeps, how
// many failed, how many were short.   sleeps nanosleep|poll|condition
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
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

struct Row {
  const char* name;
  bool (*sleep)();
};
constexpr Row kRows[] = {{"nanosleep", Nanosleep}, {"poll", Poll}, {"condition", Condition}};

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
