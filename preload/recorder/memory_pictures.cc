#include "preload/recorder/memory_pictures.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "memory/limits.h"
#include "memory/picture.h"
#include "preload/base/system.h"
#include "preload/recorder/recorder_state.h"

namespace nodeleak::preload {
namespace {

using memory::Owner;
using memory::PictureTaker;
using recording::Block;
using recording::MemoryPicture;
using recording::PictureMoment;

constexpr uint64_t kNoPeakBeforeNs = 500'000'000;      // a start is all growth
constexpr uint64_t kLeastGrowthBytes = 8ull << 20;     // since the last picture
constexpr uint64_t kRestPerPicture = 50;               // pictures take one part in so many of the watcher's time
constexpr uint64_t kLongestPictureNs = 2'000'000'000;  // of processor time

// Pictures are replaced by later ones of the same moment. The peak has two places, so that one of them is whole
// whenever the process is killed.
constexpr uint32_t kEndPlace = 0, kPeakPlace = 1, kOtherPeakPlace = 2, kRssLimitPlace = 3, kPlaces = 4;
struct Place {
  uint64_t first_use, use_room, first_arena, arena_room;
};

struct Pictures {
  SpinLock lock;  // held while one is stored, not while it is taken
  Place places[kPlaces];
  uint32_t peak_place = kPeakPlace;
  uint32_t stopped;
  uint64_t last_rss, next_ns;
  uint32_t own_version;
};
constinit Pictures g_pictures = {};

// By this thread, not the process: the kernel shows no memory under the number of a main thread that has left by
// pthread_exit.
memory::System InsideSystem() {
  return {RawSyscall, MapMemory, UnmapMemory, "/proc/thread-self", RawSyscall(SYS_gettid)};
}

uint64_t ThreadCpuNanoseconds() {
  timespec now = {};
  RawSyscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, reinterpret_cast<long>(&now));
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

bool Stopped() { return __atomic_load_n(&g_pictures.stopped, __ATOMIC_ACQUIRE) != 0; }

void ClaimOwnMemory(PictureTaker* taker) {
  const OwnMemory* own = OwnMappings();
  for (uint32_t i = 0; i < kMaxOwnMappings; ++i) {
    const uint64_t bytes = __atomic_load_n(&own[i].bytes, __ATOMIC_ACQUIRE);
    if (bytes != 0) taker->AddClaim({own[i].start, own[i].start + bytes, Owner::kNodeleak, 0});
  }
  const uint64_t base = reinterpret_cast<uint64_t>(g_recorder.file.header());
  taker->AddClaim({base, base + g_recorder.file.header()->max_file_bytes, Owner::kNodeleak, 0});
}

void ClaimRanges(PictureTaker* taker) {
  const bool read = g_recorder.ranges.ForEach([&](const recording::Range& range) {
    if ((range.flags & (recording::kRangeBrk | recording::kRangeFile)) != 0) return;
    const Owner owner = (range.flags & recording::kRangeThreadStack) != 0 ? Owner::kThreadStack
                        : range.protection == PROT_NONE                   ? Owner::kReserved
                                                                          : Owner::kMapping;
    taker->AddClaim({range.start, range.end, owner, range.stack});
  });
  if (!read) taker->MarkCut();
}

// Of ended ones too: glibc keeps their stacks for the next.
void ClaimThreadStacks(PictureTaker* taker) {
  for (uint64_t i = 0; i < g_recorder.threads.count(); ++i) {
    const recording::Thread& thread = g_recorder.threads[static_cast<uint32_t>(i)];
    if (thread.role == static_cast<uint32_t>(recording::ThreadRole::kMain)) continue;
    taker->AddClaim({thread.stack_start, thread.stack_end, Owner::kThreadStack, 0});
  }
}

void AddBlocks(const memory::System& system, uint64_t give_up_ns, PictureTaker* taker) {
  memory::PageArray<Block> blocks(system);
  for (uint32_t shard = 0; shard < recording::kShardCount; ++shard) {
    uint32_t count = 0;
    bool copied = g_recorder.blocks.CopyShard(shard, blocks.begin(), static_cast<uint32_t>(blocks.size()), &count);
    if (!copied && count != 0 && blocks.Resize(count + count / 8 + 16)) {
      copied = g_recorder.blocks.CopyShard(shard, blocks.begin(), static_cast<uint32_t>(blocks.size()), &count);
    }
    if (!copied || ThreadCpuNanoseconds() > give_up_ns) return taker->MarkCut();
    for (uint32_t i = 0; i < count; ++i)
      taker->AddBlock({blocks[i].address, recording::BlockSize(blocks[i]), blocks[i].stack});
  }
}

// Room for `count` entries: the place's own when it is large enough, otherwise new.
template <typename Entry>
bool MakeRoom(AppendTable<Entry>& table, uint64_t count, uint64_t* first, uint64_t* room) {
  if (count <= *room) return true;
  const uint64_t wanted = count + count / 2;
  const uint64_t begin = table.count();
  if (!table.Reserve(begin + wanted)) return false;
  table.Publish(begin + wanted);
  *first = begin;
  *room = wanted;
  return true;
}

// Uses with at least so much in memory.
uint64_t CountUses(const PictureTaker& taker, uint64_t least) {
  uint64_t count = 0;
  for (const recording::MemoryUse& use : taker.uses())
    count += !PictureTaker::IsEmpty(use) && use.resident >= least ? 1 : 0;
  return count;
}

// Where there is no room for all, the largest.
void FillUses(const PictureTaker& taker, Place* place, MemoryPicture* picture) {
  uint64_t least = 0;
  if (!MakeRoom(g_recorder.picture_uses, CountUses(taker, least), &place->first_use, &place->use_room)) {
    picture->flags |= recording::kPictureCut;
    while (CountUses(taker, least) > place->use_room) least = least == 0 ? 1 : 2 * least;
  }
  picture->first_use = place->first_use;
  for (const recording::MemoryUse& use : taker.uses()) {
    if (!PictureTaker::IsEmpty(use) && use.resident >= least)
      g_recorder.picture_uses[picture->first_use + picture->use_count++] = use;
  }
}

void FillArenas(const PictureTaker& taker, Place* place, MemoryPicture* picture) {
  if (!MakeRoom(g_recorder.picture_arenas, taker.arenas().size(), &place->first_arena, &place->arena_room)) {
    picture->flags |= recording::kPictureCut;
    return;
  }
  picture->first_arena = place->first_arena;
  for (const recording::MemoryArena& arena : taker.arenas())
    g_recorder.picture_arenas[picture->first_arena + picture->arena_count++] = arena;
}

void Store(const PictureTaker& taker, const memory::System& system, PictureMoment moment, uint32_t index) {
  MemoryPicture picture = taker.picture();
  picture.moment = static_cast<uint32_t>(moment);
  const bool attached = (g_recorder.file.header()->flags & recording::kIsAttached) != 0;
  picture.flags |= attached ? 0u : recording::kPictureRecordedAll;
  picture.time_ns = NanosecondsSinceStart();
  const memory::MemoryLimit limit = memory::ReadMemoryLimit(system, system);
  picture.limit_bytes = limit.bytes;
  picture.limit_used_bytes = limit.used_bytes;
  picture.flags |= limit.throttles ? recording::kPictureLimitThrottles : 0u;
  MemoryPicture& there = g_recorder.pictures[index];
  const uint32_t sequence = there.sequence;
  __atomic_store_n(&there.sequence, sequence + 1, __ATOMIC_RELEASE);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  FillUses(taker, &g_pictures.places[index], &picture);
  FillArenas(taker, &g_pictures.places[index], &picture);
  picture.sequence = sequence + 1;
  there = picture;
  __atomic_store_n(&there.sequence, sequence + 2, __ATOMIC_RELEASE);
}

// The picture of the end is the one that must have room when the recording is full.
void ReserveEndPlace() {
  constexpr uint64_t kUses = 1024, kArenas = 32;
  Place& end = g_pictures.places[kEndPlace];
  if (!g_recorder.pictures.Reserve(kPlaces)) return;
  MakeRoom(g_recorder.picture_uses, kUses, &end.first_use, &end.use_room);
  MakeRoom(g_recorder.picture_arenas, kArenas, &end.first_arena, &end.arena_room);
}

uint32_t PlaceFor(PictureMoment moment) {
  switch (moment) {
    case PictureMoment::kEnd:
      return kEndPlace;
    case PictureMoment::kRssLimit:
      return kRssLimitPlace;
    default:
      g_pictures.peak_place = g_pictures.peak_place == kPeakPlace ? kOtherPeakPlace : kPeakPlace;
      return g_pictures.peak_place;
  }
}

// One more try than the watcher needs: it may have lost the processor in the middle of storing its own.
bool LockPlaces() {
  constexpr int kTries = 4;
  for (int i = 0; i < kTries; ++i) {
    if (g_pictures.lock.TryLock()) return true;
  }
  return false;
}

// For who takes a picture from outside.
void PublishOwnMappings() {
  const uint32_t version = OwnMappingsVersion();
  if (version == g_pictures.own_version || !g_recorder.own_mappings.Reserve(kMaxOwnMappings + 1)) return;
  g_pictures.own_version = version;
  const OwnMemory* own = OwnMappings();
  for (uint32_t i = 0; i < kMaxOwnMappings; ++i) g_recorder.own_mappings[i] = {own[i].start, own[i].bytes};
  const recording::Header* header = g_recorder.file.header();
  g_recorder.own_mappings[kMaxOwnMappings] = {reinterpret_cast<uint64_t>(header), header->max_file_bytes};
  g_recorder.own_mappings.Publish(kMaxOwnMappings + 1);
}

}  // namespace

void AttachPictures(RecordingFile* file) {
  g_recorder.pictures.Attach(file, recording::TableId::kMemoryPictures, kPlaces);
  g_recorder.picture_uses.Attach(file, recording::TableId::kMemoryUses, 256);
  g_recorder.picture_arenas.Attach(file, recording::TableId::kMemoryArenas, 64);
  g_recorder.own_mappings.Attach(file, recording::TableId::kOwnMappings, kMaxOwnMappings + 1);
}

void TakePicture(PictureMoment moment) {
  const memory::System system = InsideSystem();
  const uint64_t give_up_ns = ThreadCpuNanoseconds() + kLongestPictureNs;
  PictureTaker taker(system, static_cast<uint32_t>(g_recorder.stacks.count()));
  if ((g_recorder.file.header()->flags & recording::kOtherAllocator) != 0) taker.SetOtherAllocator();
  ClaimOwnMemory(&taker);
  ClaimRanges(&taker);
  ClaimThreadStacks(&taker);
  if (!taker.ReadKernel()) return;
  const auto given_up = [&] { return moment != PictureMoment::kEnd && Stopped(); };
  if (given_up()) return;
  AddBlocks(system, give_up_ns, &taker);
  if (given_up()) return;
  taker.Finish(ThreadCpuNanoseconds() < give_up_ns);
  if (!LockPlaces()) return;
  if (g_recorder.pictures.Reserve(kPlaces)) {
    g_recorder.pictures.Publish(kPlaces);
    Store(taker, system, moment, PlaceFor(moment));
  }
  g_pictures.lock.Unlock();
}

PictureMoment PictureIfDue(uint64_t rss_bytes) {
  if (g_pictures.places[kEndPlace].use_room == 0) ReserveEndPlace();
  PublishOwnMappings();
  const uint64_t now_ns = NanosecondsSinceStart();
  recording::Header* header = g_recorder.file.header();
  PictureMoment due = PictureMoment::kNone;
  if (header->on_rss_bytes != 0 && header->on_rss_crossed_ns == 0 && rss_bytes >= header->on_rss_bytes) {
    due = PictureMoment::kRssLimit;
  } else if (now_ns >= kNoPeakBeforeNs && now_ns >= g_pictures.next_ns &&
             rss_bytes >= g_pictures.last_rss + g_pictures.last_rss / 10 &&
             rss_bytes >= g_pictures.last_rss + kLeastGrowthBytes) {
    due = PictureMoment::kPeak;
  }
  if (due == PictureMoment::kNone || Stopped()) return PictureMoment::kNone;
  const uint64_t begin_cpu_ns = ThreadCpuNanoseconds();
  TakePicture(due);
  const uint64_t cpu_ns = ThreadCpuNanoseconds() - begin_cpu_ns;
  const uint64_t end_ns = NanosecondsSinceStart();
  if (due == PictureMoment::kRssLimit) {
    __atomic_store_n(&header->on_rss_crossed_ns, end_ns, __ATOMIC_RELEASE);
  } else {
    g_pictures.last_rss = rss_bytes;
    g_pictures.next_ns = end_ns + cpu_ns * kRestPerPicture;
  }
  return due;
}

void RestartPictures() {
  if (g_recorder.pictures.count() > kEndPlace && LockPlaces()) {
    g_recorder.pictures[kEndPlace].moment = static_cast<uint32_t>(PictureMoment::kNone);
    g_pictures.lock.Unlock();
  }
  __atomic_store_n(&g_pictures.stopped, 0u, __ATOMIC_RELEASE);
}

void StopPictures() { __atomic_store_n(&g_pictures.stopped, 1u, __ATOMIC_RELEASE); }
void ForgetPictures() { g_pictures = {}; }

}  // namespace nodeleak::preload
