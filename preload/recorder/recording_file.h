// Runs inside node, on any thread, possibly inside malloc. Never allocates or throws; no hooked function is called.
//
// The recording file: created once, mapped MAP_SHARED in one piece up to its limit, extended only by fallocate *before*
// memory is touched, so a full disk is a refused extent and never a SIGBUS. File offset and address differ by a
// constant.
#pragma once

#include <stdint.h>

#include "preload/base/system.h"
#include "recording/layout.h"

namespace nodeleak::preload {

class RecordingFile {
 public:
  // Creates `path` (0600, never through a symbolic link) with a header and empty shards. A file that is there already
  // is replaced only when it is a recording. False: *why is a static clause ("the disk is full"); nothing is left
  // behind. `path` stays valid.
  bool Create(const char* path, uint64_t max_bytes, const char** why);
  // The same in an empty file that somebody else created and opened for reading and writing; the descriptor becomes
  // ours.
  bool Adopt(int fd, uint64_t max_bytes, const char** why);
  // The same over anonymous memory, for unit tests of the tables.
  bool CreateInMemory(uint64_t max_bytes);
  void Close();  // unmaps and closes; the file stays

  // RLIMIT_FSIZE leaves less room than was asked for; in the header, too, once there is one.
  bool is_file_size_limited() const { return file_size_limited_; }

  recording::Header* header() const { return reinterpret_cast<recording::Header*>(base_); }
  char* At(uint64_t offset) const { return base_ + offset; }
  recording::Shard* shards() const { return reinterpret_cast<recording::Shard*>(base_ + sizeof(recording::Header)); }

  // A zeroed extent, page aligned; 0 when the limit is reached or the disk is full. Any thread.
  uint64_t Allocate(uint64_t bytes);
  // Gives an extent back for reuse. Waits for no disk: what is left of it to the file system is for TendDisk.
  void Release(uint64_t offset, uint64_t bytes);
  // By the watcher, now and then: what may wait for the disk, so that Allocate and Release seldom do. While the
  // file keeps growing it reserves ahead and brings the next pages into memory; afterwards it frees the disk blocks of
  // what was released, piece by piece. True: come again soon.
  bool TendDisk();
  // Gives back what was reserved ahead; the file ends where its last extent ends. Any thread.
  void TrimReserve();

  // In a forked child: the mapping and the descriptor are the parent's.
  void Abandon() { base_ = nullptr; }

 private:
  // The file for one call: the descriptor that is kept, or opened again by its path. file() is negative when neither
  // is to be had.
  class Open {
   public:
    explicit Open(const RecordingFile& recording);
    ~Open();
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    long file() const { return file_; }

   private:
    long file_;
    bool opened_ = false;
  };

  bool IsOurs(long fd) const;
  const char* WhyNoRoom() const;
  void NoteFileSizeLimit();
  bool Extend(uint64_t offset, uint64_t bytes);
  bool ExtendUnlessRefused(uint64_t offset, uint64_t bytes);
  bool ReserveUpTo(uint64_t end);
  uint64_t TakeReleased(uint64_t bytes);  // 0: none
  bool InitializeLayout();

  struct FreeExtent {
    uint64_t offset;
    uint64_t bytes;
    bool punched;  // its disk blocks were given back: to be reserved again
  };
  bool TakeUnpunched(FreeExtent* taken);
  void AddFree(FreeExtent extent);
  bool PunchOne();
  void ReserveAhead(uint64_t growth);
  static constexpr uint32_t kMaxFreeExtents = 1024;

  char* base_ = nullptr;
  uint64_t max_bytes_ = 0;
  uint64_t end_ = 0;
  uint64_t reserved_ = 0;  // the file is that long on disk; end_ or more
  bool in_memory_ = false;
  bool file_size_limited_ = false;
  int fd_ = -1;            // -1: none is kept
  const char* path_ = "";  // of the file, for when the descriptor is gone
  uint64_t device_ = 0, inode_ = 0;
  SpinLock lock_;
  // The disk was full for so many bytes: it is not asked for as much again before that time.
  uint64_t refused_bytes_ = 0, ask_again_ns_ = 0;
  FreeExtent free_[kMaxFreeExtents] = {};
  uint32_t free_count_ = 0;
  // TendDisk's alone.
  uint64_t tended_end_ = 0, populated_ = 0;
  uint32_t growing_ = 0;  // times in a row
};

}  // namespace nodeleak::preload
