// Inside node, on a thread of our own with all signals blocked: samples of the process, checkpoints of the stacks,
// totals in the header.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "preload/base/guard.h"
#include "preload/recorder/memory_pictures.h"
#include "preload/recorder/recorder_state.h"
#include "preload/recorder/sampler.h"
#include "preload/unwind/table_pages.h"

namespace nodeleak::preload {
namespace {

using recording::TimelineSample;

constexpr uint64_t kFirstSampleIntervalNs = 100'000'000;
constexpr uint64_t kFirstCheckpointIntervalNs = 250'000'000;
constexpr uint64_t kLookAtRssEveryNs = 1'000'000'000;  // samples become rare in a long run
constexpr uint32_t kTendFileMs = 20;
constexpr size_t kWatcherStackBytes = 128 * 1024;

struct Schedule {
  uint64_t sample_interval_ns = kFirstSampleIntervalNs;
  uint64_t checkpoint_interval_ns = kFirstCheckpointIntervalNs;
  uint64_t next_checkpoint_ns = kFirstCheckpointIntervalNs;
};
Schedule g_schedule;
SpinLock g_sampling;  // the watcher, and the thread that freezes

// Keeps every second entry and doubles the interval: any length of run fits.
template <typename Entry>
void KeepEverySecond(AppendTable<Entry>& table) {
  const uint64_t count = table.count();
  for (uint64_t i = 0; i < count / 2; ++i) table[i] = table[2 * i + 1];
  table.Publish(count / 2);
}

// An idle isolate's heap stays as it is.
uint64_t TakeLeastHeapUsed(recording::Isolate* isolate, bool* is_news) {
  const uint64_t least = __atomic_exchange_n(&isolate->heap_used_least, uint64_t{0}, __ATOMIC_RELAXED);
  if (least == 0) return isolate->heap_used;
  *is_news = true;
  return least;
}

void AddSample(uint64_t now_ns) {
  AppendTable<TimelineSample>& timeline = g_recorder.timeline;
  if (timeline.count() >= recording::kMaxTimelineSamples) {
    KeepEverySecond(timeline);
    g_schedule.sample_interval_ns *= 2;
  }
  const recording::Header* header = g_recorder.file.header();
  TimelineSample sample = {};
  sample.time_ns = now_ns;
  sample.rss_bytes = ReadRssBytes();
  sample.live_bytes = header->live_bytes;
  sample.live_blocks = header->live_blocks;
  sample.mapped_bytes = header->mapped_bytes;
  bool is_news = false;
  for (uint64_t i = 0; i < g_recorder.isolates.count(); ++i) {
    recording::Isolate& isolate = g_recorder.isolates[i];
    sample.mark_compacts += static_cast<uint32_t>(isolate.mark_compacts);
    sample.scavenges += static_cast<uint32_t>(isolate.scavenges);
    sample.loop_turns += isolate.loop_turns;
    if (isolate.disposed_ns != 0) continue;
    sample.heap_used += isolate.heap_used;
    sample.heap_used_after_gc += isolate.heap_used_after_gc;
    sample.heap_used_least += TakeLeastHeapUsed(&isolate, &is_news);
  }
  if (!is_news) sample.heap_used_least = 0;
  timeline.Append(sample);
}

void AddCheckpoint(uint64_t now_ns) {
  recording::Checkpoint moment = {};
  moment.time_ns = now_ns;
  moment.mark_compacts = g_recorder.file.header()->major_gcs;
  moment.rss_bytes = ReadRssBytes();
  if (g_recorder.checkpoints.Add(moment, g_recorder.stacks)) g_schedule.checkpoint_interval_ns *= 2;
}

void MarkCheckpoint() {
  if (!g_sampling.TryLock()) return;
  if (IsRecording()) AddCheckpoint(NanosecondsSinceStart());
  g_sampling.Unlock();
}

WatcherSleep g_sleep;

void* WatchForever(void*) {
  for (;;) {
    Watch(g_sleep);
    // Signals that ask for the picture may still come; they find it taken. Or it was not the end.
    g_sleep(__atomic_load_n(WatcherBell(), __ATOMIC_ACQUIRE), 1000);
  }
}

// libc counts its threads, and the last one that ends ends the process: it is not to wait for one of ours where main
// has left by pthread_exit. The count is private to libc, but has a name for debuggers (glibc 2.34 and later).
void CountOwnThread(unsigned change) {
  static unsigned* const count = static_cast<unsigned*>(dlsym(RTLD_DEFAULT, "__nptl_nthreads"));
  if (count != nullptr) __atomic_fetch_add(count, change, __ATOMIC_SEQ_CST);
}

void* (*g_own_routine)(void*);

void* OwnThread(void*) {
  ++t_locals.depth;  // nothing this thread does is the program's
  RawSyscall(SYS_prctl, PR_SET_NAME, reinterpret_cast<long>("nodeleak"));
  void* result = g_own_routine(nullptr);
  CountOwnThread(1u);  // libc is about to take it out itself
  return result;
}

}  // namespace

void Watch(WatcherSleep sleep) {
  uint64_t next_sample_ns = 0;
  while (IsRecording()) {
    const uint32_t bell = __atomic_load_n(WatcherBell(), __ATOMIC_ACQUIRE);  // before looking at what it may be about
    const uint32_t requests_ms = ServeMailbox();
    const uint64_t now_ns = NanosecondsSinceStart();
    if (now_ns >= next_sample_ns) {
      if (g_sampling.TryLock()) {
        if (IsRecording()) {
          UpdateTotals();
          AddSample(now_ns);
          g_recorder.file.header()->last_alive_ns = now_ns;
          if (SamplingIsAutomatic()) {
            g_recorder.file.header()->sample_bytes =
                AdaptSampling(__atomic_load_n(&g_recorder.sampled, __ATOMIC_RELAXED));
          }
          if (now_ns >= g_schedule.next_checkpoint_ns) {
            AddCheckpoint(now_ns);
            g_schedule.next_checkpoint_ns = now_ns + g_schedule.checkpoint_interval_ns;
          }
        }
        g_sampling.Unlock();
      }
      g_recorder.threads.RefreshNames();
      next_sample_ns = now_ns + g_schedule.sample_interval_ns;
    }
    ReleaseTablePages();
    const bool tend_file = IsRecording() && g_recorder.file.TendDisk();
    if (PictureIfDue(ReadRssBytes()) == recording::PictureMoment::kRssLimit) MarkCheckpoint();
    const uint64_t until_sample_ns = next_sample_ns - now_ns;
    const auto look_ms = static_cast<uint32_t>(
        (until_sample_ns < kLookAtRssEveryNs ? until_sample_ns : kLookAtRssEveryNs) / 1'000'000 + 1);
    const uint32_t file_ms = tend_file ? kTendFileMs : look_ms;
    const uint32_t soonest_ms = file_ms < look_ms ? file_ms : look_ms;
    sleep(bell, requests_ms < soonest_ms ? requests_ms : soonest_ms);
  }
}

void ForgetSchedule() { g_schedule = {}; }

uint64_t ReadRssBytes() {
  const long fd =
      RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>("/proc/thread-self/statm"), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[128] = {};
  const long got = RawSyscall(SYS_read, fd, reinterpret_cast<long>(text), sizeof text - 1);
  RawSyscall(SYS_close, fd);
  const char* p = got > 0 ? strchr(text, ' ') : nullptr;
  uint64_t pages = 0;
  for (p = p != nullptr ? p + 1 : ""; *p >= '0' && *p <= '9'; ++p) pages = pages * 10 + static_cast<uint64_t>(*p - '0');
  return pages * recording::kPageBytes;
}

void SampleNow() {
  if (!g_sampling.TryLock()) return;
  UpdateTotals();
  const uint64_t now_ns = NanosecondsSinceStart();
  AddSample(now_ns);
  AddCheckpoint(now_ns);
  g_sampling.Unlock();
}

int StartOwnThread(void* (*routine)(void*)) {
  g_own_routine = routine;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kWatcherStackBytes);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, OwnThread, nullptr);
  if (error == 0) CountOwnThread(-1u);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return error;
}

bool StartWatcher(WatcherSleep sleep) {
  g_sleep = sleep;
  return StartOwnThread(WatchForever) == 0;
}

}  // namespace nodeleak::preload
