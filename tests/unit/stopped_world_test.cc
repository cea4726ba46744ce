// Stops real processes: children of the test.
#include "tracer/stopped_world.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "tracer/proc_files.h"

namespace nodeleak::tracer {
namespace {

// A sanitizer's own threads do not like a child that makes some.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

using std::chrono::microseconds;
using std::chrono::milliseconds;

void* Count(void* counter) {
  for (;;) static_cast<std::atomic<uint64_t>*>(counter)->fetch_add(1);
}

constexpr const char* kPause = "34 ";  // the number of the system call
int SleepUntilKilled(void*) {
  for (;;) pause();
}

// A child with a thread that counts, while its main thread runs `main`.
class StopsAChild : public ::testing::Test {
 protected:
  StopsAChild()
      : counter_(new (mmap(nullptr, sizeof *counter_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                     std::atomic<uint64_t>(0)) {}
  ~StopsAChild() override {
    kill(-child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    munmap(counter_, sizeof *counter_);
  }

  template <typename Ready>
  void Start(int (*main)(void*), Ready is_ready) {
    child_ = fork();
    if (child_ == 0) {
      setpgid(0, 0);
      pthread_t thread;
      pthread_create(&thread, nullptr, Count, counter_);
      main(nullptr);
      _exit(1);
    }
    setpgid(child_, child_);
    while (*counter_ == 0 || !is_ready(child_)) std::this_thread::yield();
  }
  bool GoesOn() const {
    const uint64_t before = *counter_;
    for (int i = 0; i < 10'000 && *counter_ == before; ++i) std::this_thread::sleep_for(milliseconds(1));
    return *counter_ != before;
  }

  pid_t child_ = 0;
  std::atomic<uint64_t>* const counter_;
};

TEST_F(StopsAChild, ThoseThatComputeFirst) {
  Start(SleepUntilKilled, [](pid_t child) { return ReadProcFile(child, "syscall").rfind(kPause, 0) == 0; });
  microseconds in_vain(0);
  absl::StatusOr<StoppedWorld> world = StoppedWorld::Stop(child_, milliseconds(10'000), &in_vain);
  ASSERT_TRUE(world.ok()) << world.status();
  ASSERT_EQ(world->threads().size(), 2u);
  EXPECT_NE(world->threads()[0].thread.id(), child_);
  EXPECT_EQ(world->threads()[1].thread.id(), child_);
  const uint64_t counted = *counter_;
  for (const StoppedThread& stopped : world->threads()) EXPECT_EQ(ReadThreadState(stopped.thread.id()), 't');
  EXPECT_EQ(*counter_, counted);
  EXPECT_GT(world->Release().count(), 0);
  EXPECT_EQ(in_vain.count(), 0);
  EXPECT_TRUE(GoesOn());
}

int StartAProgramForever(void*) {
  alignas(16) static char stack[16 * 1024];
  return clone(SleepUntilKilled, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
}

TEST_F(StopsAChild, WhereOneCannotBeStoppedTheOthersGoOnAndTheirTimeIsCounted) {
  Start(StartAProgramForever, [](pid_t child) { return ReadThreadState(child) == 'D'; });
  microseconds in_vain(0);
  const absl::StatusOr<StoppedWorld> world = StoppedWorld::Stop(child_, milliseconds(2), &in_vain);
  EXPECT_TRUE(absl::IsUnavailable(world.status())) << world.status();
  EXPECT_GE(in_vain, milliseconds(2));
  EXPECT_NE(ReadThreadState(child_), 't');
  EXPECT_TRUE(GoesOn());
  kill(-child_, SIGKILL);
  TracedThread::LetGoOfLatecomers();
}

#endif

}  // namespace
}  // namespace nodeleak::tracer
