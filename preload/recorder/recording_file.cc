#include "preload/recorder/recording_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "preload/base/writing_syscall.h"
#include "recording/layout.h"

namespace nodeleak::preload {
namespace {

using recording::Block;
using recording::Header;
using recording::kPageBytes;
using recording::kShardCount;
using recording::Shard;

constexpr uint32_t kFirstShardEntries = 64;
// Our descriptor lives high up, out of the way of programs that count on the lowest free number.
constexpr int kFirstDescriptor = 900;

uint64_t RoundToPage(uint64_t bytes) { return (bytes + kPageBytes - 1) & ~(kPageBytes - 1); }

long OpenAt(const char* path, int flags, int mode) {
  return RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

uint64_t SoftLimit(int resource) {
  rlimit limit;
  if (RawSyscall(SYS_prlimit64, 0, resource, 0, reinterpret_cast<long>(&limit)) != 0) return RLIM_INFINITY;
  return limit.rlim_cur;
}

long Duplicate(long fd, int lowest) { return RawSyscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, lowest); }

// A duplicate out of the program's way; negative where there is none. The limit of open files is one of their numbers:
// where that is low and may be raised for a moment, the program keeps all of its own.
long DuplicateHigh(long fd) {
  long high = Duplicate(fd, kFirstDescriptor);
  if (high >= 0) return high;
  rlimit programs;
  if (RawSyscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, reinterpret_cast<long>(&programs)) != 0) return high;
  rlimit raised = {kFirstDescriptor + 1, kFirstDescriptor + 1};
  if (programs.rlim_max > raised.rlim_max) raised.rlim_max = programs.rlim_max;
  if (RawSyscall(SYS_prlimit64, 0, RLIMIT_NOFILE, reinterpret_cast<long>(&raised), 0) == 0) {
    high = Duplicate(fd, kFirstDescriptor);
    RawSyscall(SYS_prlimit64, 0, RLIMIT_NOFILE, reinterpret_cast<long>(&programs), 0);
  }
  return high;
}

bool IsRecordingFile(const char* path) {
  long fd = OpenAt(path, O_RDONLY | O_NONBLOCK, 0);
  if (fd < 0) return false;
  uint64_t magic = 0;
  long got = RawSyscall(SYS_read, fd, reinterpret_cast<long>(&magic), sizeof magic);
  struct stat status;
  bool regular = RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) == 0 && S_ISREG(status.st_mode);
  RawSyscall(SYS_close, fd);
  return regular && got == sizeof magic && magic == recording::kMagic;
}

struct OpenError {
  long code;
  const char* why;
};
constexpr OpenError kOpenErrors[] = {
    {-EACCES, "permission denied"},          {-ENOENT, "its directory does not exist"},
    {-ENOSPC, "the disk is full"},           {-EROFS, "the file system is read-only"},
    {-EDQUOT, "the disk quota is used up"},  {-ENOTDIR, "part of its path is not a directory"},
    {-EISDIR, "it is a directory"},          {-ELOOP, "it is a symbolic link"},
    {-ENAMETOOLONG, "its name is too long"}, {-EMFILE, "too many open files"},
};

const char* Explain(long code) {
  for (const OpenError& error : kOpenErrors) {
    if (error.code == code) return error.why;
  }
  return "the file cannot be created";
}

}  // namespace

bool RecordingFile::Create(const char* path, uint64_t max_bytes, const char** why) {
  long fd = OpenAt(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd == -EEXIST) {
    if (!IsRecordingFile(path)) {
      *why = "a file of that name is there and is not a recording (choose another --output)";
      return false;
    }
    // A new file, not the old one emptied: somebody may be reading or still writing the old one.
    RawSyscall(SYS_unlink, reinterpret_cast<long>(path));
    fd = OpenAt(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  }
  if (fd < 0) {
    *why = Explain(fd);
    return false;
  }
  RawSyscall(SYS_fchmod, fd, 0600);  // an umask may have taken more away
  path_ = path;
  if (Adopt(static_cast<int>(fd), max_bytes, why)) return true;
  RawSyscall(SYS_unlink, reinterpret_cast<long>(path));
  return false;
}

bool RecordingFile::Adopt(int fd, uint64_t max_bytes, const char** why) {
  struct stat status;
  RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status));
  device_ = status.st_dev;
  inode_ = status.st_ino;

  const uint64_t file_limit = SoftLimit(RLIMIT_FSIZE);
  file_size_limited_ = file_limit < max_bytes;
  if (file_size_limited_) max_bytes = file_limit;
  // A limited address space is the program's.
  constexpr uint64_t kOurPart = 16;
  const uint64_t memory_limit = SoftLimit(RLIMIT_AS);
  if (memory_limit != RLIM_INFINITY && memory_limit / kOurPart < max_bytes) {
    max_bytes = memory_limit / kOurPart;
    file_size_limited_ = false;
  }
  max_bytes_ = max_bytes & ~(kPageBytes - 1);
  if (max_bytes_ == 0) {
    *why = WhyNoRoom();
    RawSyscall(SYS_close, fd);
    return false;
  }
  long mapped =
      RawSyscall(SYS_mmap, 0, static_cast<long>(max_bytes_), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  fd_ = static_cast<int>(DuplicateHigh(fd));
  RawSyscall(SYS_close, fd);
  if (mapped < 0 && mapped > -4096) {
    *why = "its memory cannot be mapped (is the address space limited? try a smaller --max-recording)";
  } else {
    base_ = reinterpret_cast<char*>(mapped);
    // A forked child must not write into its parent's recording, whatever it does.
    RawSyscall(SYS_madvise, mapped, static_cast<long>(max_bytes_), MADV_DONTFORK);
    if (InitializeLayout()) return true;
    *why = WhyNoRoom();
    RawSyscall(SYS_munmap, mapped, static_cast<long>(max_bytes_));
    base_ = nullptr;
  }
  if (fd_ >= 0) RawSyscall(SYS_close, fd_);
  fd_ = -1;
  return false;
}

const char* RecordingFile::WhyNoRoom() const {
  return file_size_limited_ ? "the limit for the size of files is too low for it (ulimit -f); it takes some megabytes"
                            : "there is no room for it (is the disk full, or ulimit -v low?)";
}

void RecordingFile::NoteFileSizeLimit() {
  file_size_limited_ = true;
  if (end_ != 0) __atomic_fetch_or(&header()->flags, recording::kFileSizeLimited, __ATOMIC_RELAXED);
}

bool RecordingFile::CreateInMemory(uint64_t max_bytes) {
  max_bytes_ = max_bytes & ~(kPageBytes - 1);
  in_memory_ = true;
  base_ = static_cast<char*>(MapMemory(max_bytes_));
  return base_ != nullptr && InitializeLayout();
}

void RecordingFile::Close() {
  if (base_ != nullptr) UnmapMemory(base_, max_bytes_);
  if (IsOurs(fd_)) RawSyscall(SYS_close, fd_);
  base_ = nullptr;
  fd_ = -1;
}

bool RecordingFile::InitializeLayout() {
  const uint64_t shards_bytes = RoundToPage(kShardCount * sizeof(Shard));
  const uint64_t blocks_bytes = RoundToPage(kShardCount * kFirstShardEntries * sizeof(Block));
  const uint64_t fixed = sizeof(Header) + shards_bytes + blocks_bytes;
  if (fixed > max_bytes_ || !ReserveUpTo(fixed)) return false;
  end_ = fixed;
  Header* h = header();
  h->version = recording::kFormatVersion;
  h->header_bytes = sizeof(Header);
  h->file_bytes = end_;
  h->max_file_bytes = max_bytes_;
  h->shards_offset = sizeof(Header);
  for (uint32_t i = 0; i < kShardCount; ++i) {
    shards()[i].capacity = kFirstShardEntries;
    shards()[i].offset = sizeof(Header) + shards_bytes + i * kFirstShardEntries * sizeof(Block);
  }
  __atomic_store_n(&h->magic, recording::kMagic, __ATOMIC_RELEASE);
  return true;
}

// The program may have closed our descriptor and reused its number: never touch somebody else's file.
bool RecordingFile::IsOurs(long fd) const {
  struct stat status;
  return fd >= 0 && RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) == 0 && status.st_dev == device_ &&
         status.st_ino == inode_;
}

RecordingFile::Open::Open(const RecordingFile& recording) : file_(recording.fd_) {
  if (recording.in_memory_ || recording.IsOurs(file_)) return;
  file_ = OpenAt(recording.path_, O_RDWR | O_NONBLOCK, 0);
  opened_ = file_ >= 0;
  if (!opened_ || recording.IsOurs(file_)) return;
  RawSyscall(SYS_close, file_);
  file_ = -1;
  opened_ = false;
}

RecordingFile::Open::~Open() {
  if (opened_) RawSyscall(SYS_close, file_);
}

bool RecordingFile::Extend(uint64_t offset, uint64_t bytes) {
  if (in_memory_) return true;
  const Open open(*this);
  if (open.file() < 0) return false;
  if (SoftLimit(RLIMIT_FSIZE) < offset + bytes) {
    NoteFileSizeLimit();
    return false;
  }
  long result;
  do {  // the limit may be lowered this very moment
    result = RawWritingSyscall(SYS_fallocate, open.file(), 0, static_cast<long>(offset), static_cast<long>(bytes));
  } while (result == -EINTR);
  // A seccomp filter says one of the last two.
  const bool cannot = result == -EOPNOTSUPP || result == -ENOSYS || result == -EPERM;
  if (!cannot) return result == 0;
  // A file system that cannot reserve, or a process that may not: write the zeros, which reserves just as well.
  static const char zeros[kPageBytes] = {};
  for (uint64_t done = 0; done < bytes; done += kPageBytes) {
    if (RawWritingSyscall(SYS_pwrite64, open.file(), reinterpret_cast<long>(zeros), kPageBytes,
                          static_cast<long>(offset + done)) != static_cast<long>(kPageBytes)) {
      return false;
    }
  }
  return true;
}

// A full disk may take milliseconds to say so (tmpfs first takes all the pages that are left), and every allocation of
// the program that finds no room would ask.
bool RecordingFile::ExtendUnlessRefused(uint64_t offset, uint64_t bytes) {
  constexpr uint64_t kAskAgainAfterNs = 200'000'000;
  const uint64_t now = CoarseMonotonicNanoseconds();
  if (now < ask_again_ns_ && bytes >= refused_bytes_) return false;
  if (Extend(offset, bytes)) return true;
  refused_bytes_ = bytes;
  ask_again_ns_ = now + kAskAgainAfterNs;
  return false;
}

// Reserving is a system call of some microseconds: a piece ahead of what is needed, and where that cannot be had, just
// what is needed.
bool RecordingFile::ReserveUpTo(uint64_t end) {
  if (end <= reserved_) return true;
  if (end > max_bytes_) return false;
  constexpr uint64_t kLeastAhead = 512 << 10, kMostAhead = 4 << 20;
  uint64_t ahead = RoundToPage(end / 8);
  ahead = ahead < kLeastAhead ? kLeastAhead : ahead > kMostAhead ? kMostAhead : ahead;
  const uint64_t tries[] = {end + ahead < max_bytes_ ? end + ahead : max_bytes_, end};
  for (const uint64_t wanted : tries) {
    if (!ExtendUnlessRefused(reserved_, wanted - reserved_)) continue;
    __atomic_store_n(&reserved_, wanted, __ATOMIC_RELAXED);
    return true;
  }
  return false;
}

// The smallest that is large enough; what needs no disk first.
uint64_t RecordingFile::TakeReleased(uint64_t bytes) {
  FreeExtent* best = nullptr;
  for (uint32_t i = 0; i < free_count_; ++i) {
    FreeExtent& extent = free_[i];
    if (extent.bytes < bytes) continue;
    const bool better =
        best == nullptr || (best->punched != extent.punched ? best->punched : extent.bytes < best->bytes);
    if (better) best = &extent;
  }
  if (best == nullptr || (best->punched && !ExtendUnlessRefused(best->offset, bytes))) return 0;
  const uint64_t offset = best->offset;
  best->offset += bytes;
  best->bytes -= bytes;
  if (best->bytes == 0) *best = free_[--free_count_];
  return offset;
}

uint64_t RecordingFile::Allocate(uint64_t bytes) {
  bytes = RoundToPage(bytes);
  if (!lock_.TryLock()) return 0;
  const uint64_t released = TakeReleased(bytes);
  uint64_t offset = released;
  if (released == 0 && ReserveUpTo(end_ + bytes)) {
    offset = end_;
    __atomic_store_n(&end_, end_ + bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&header()->file_bytes, end_, __ATOMIC_RELEASE);
  }
  lock_.Unlock();
  if (released != 0) memset(At(released), 0, bytes);
  return offset;
}

// One with its neighbours: the tables grow by half, and what several left is room for the next one.
void RecordingFile::AddFree(FreeExtent extent) {
  if (!lock_.TryLock()) return;
  for (uint32_t i = 0; i < free_count_;) {
    const FreeExtent& other = free_[i];
    const bool before = other.offset + other.bytes == extent.offset,
               behind = extent.offset + extent.bytes == other.offset;
    if (other.punched != extent.punched || (!before && !behind)) {
      ++i;
      continue;
    }
    if (before) extent.offset = other.offset;
    extent.bytes += other.bytes;
    free_[i] = free_[--free_count_];
  }
  if (free_count_ < kMaxFreeExtents) free_[free_count_++] = extent;
  lock_.Unlock();
}

void RecordingFile::Release(uint64_t offset, uint64_t bytes) {
  if ((offset & (kPageBytes - 1)) != 0 || bytes < kPageBytes) return;  // part of a page that others share
  AddFree({offset, RoundToPage(bytes), false});
}

// Nobody's until it is given back.
bool RecordingFile::TakeUnpunched(FreeExtent* taken) {
  constexpr uint64_t kWorthPunching = 8 << 10;  // a system call, and the pages are faulted in again at reuse
  constexpr uint64_t kMostAtATime = 1 << 20;
  if (!lock_.TryLock()) return false;
  bool found = false;
  for (uint32_t i = 0; i < free_count_ && !found; ++i) {
    FreeExtent& extent = free_[i];
    if (extent.punched || extent.bytes < kWorthPunching) continue;
    *taken = extent;
    if (taken->bytes > kMostAtATime) taken->bytes = kMostAtATime;
    extent.offset += taken->bytes;
    extent.bytes -= taken->bytes;
    if (extent.bytes == 0) extent = free_[--free_count_];
    found = true;
  }
  lock_.Unlock();
  return found;
}

// Punching takes the file's pages away under a lock that page faults of the same file need, and waits there for pages
// that are being written to disk: wait for those first, without the lock (Linux, fs/ext4/inode.c, ext4_punch_hole).
bool RecordingFile::PunchOne() {
  FreeExtent extent;
  if (!TakeUnpunched(&extent)) return false;
  const Open open(*this);
  if (open.file() >= 0) {
    const long at = static_cast<long>(extent.offset), bytes = static_cast<long>(extent.bytes);
    RawSyscall(SYS_sync_file_range, open.file(), at, bytes, SYNC_FILE_RANGE_WAIT_BEFORE);
    extent.punched = RawSyscall(SYS_fallocate, open.file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes) == 0;
  }
  AddFree(extent);
  return extent.punched;
}

// Twice what was needed since the last time. The end of the reserve is told only where nobody moved it meanwhile.
void RecordingFile::ReserveAhead(uint64_t growth) {
  constexpr uint64_t kMostAhead = 8 << 20, kPiece = 64 << 10;
  const uint64_t end = __atomic_load_n(&end_, __ATOMIC_RELAXED);
  const uint64_t reserved = __atomic_load_n(&reserved_, __ATOMIC_RELAXED);
  uint64_t wanted = end + (2 * growth < kMostAhead ? RoundToPage(2 * growth) : kMostAhead);
  if (wanted > max_bytes_) wanted = max_bytes_;
  if (wanted > reserved && Extend(reserved, wanted - reserved) && lock_.TryLock()) {
    if (reserved_ == reserved) __atomic_store_n(&reserved_, wanted, __ATOMIC_RELAXED);
    lock_.Unlock();
  }
  // A refusal (an older kernel, the end of the file) leaves the faults to those who come first. Small pieces: a mapping
  // of the program's waits for one.
  uint64_t at = populated_ > end ? populated_ : end;
  for (; at < wanted && at + kPiece <= __atomic_load_n(&reserved_, __ATOMIC_RELAXED); at += kPiece) {
    if (RawSyscall(SYS_madvise, reinterpret_cast<long>(At(at)), kPiece, MADV_POPULATE_WRITE) != 0) break;
  }
  populated_ = at;
}

bool RecordingFile::TendDisk() {
  if (in_memory_) return false;
  constexpr uint64_t kGrowing = 256 << 10;
  const uint64_t end = __atomic_load_n(&end_, __ATOMIC_RELAXED);
  const uint64_t growth = tended_end_ == 0 ? 0 : end - tended_end_;
  tended_end_ = end;
  if (growth < kGrowing) {  // a growing one needs what was released, and the file system, itself
    growing_ = 0;
    return PunchOne();
  }
  constexpr uint32_t kSteadily = 3;  // a program that starts grows once, and would be left with megabytes
  if (growing_ < kSteadily && ++growing_ < kSteadily) return false;
  ReserveAhead(growth);
  return true;
}

void RecordingFile::TrimReserve() {
  if (!lock_.TryLock()) return;
  const Open open(*this);
  if (reserved_ > end_ && open.file() >= 0 && RawSyscall(SYS_ftruncate, open.file(), static_cast<long>(end_)) == 0) {
    __atomic_store_n(&reserved_, end_, __ATOMIC_RELAXED);
  }
  lock_.Unlock();
}

}  // namespace nodeleak::preload
