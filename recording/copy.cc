#include "recording/copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "recording/byte_source.h"
#include "recording/destination.h"
#include "recording/process.h"
#include "recording/raw_reader.h"

namespace nodeleak::recording {
namespace {

constexpr uint64_t kAlignment = 64;

// Appends to a new file. Gone unless Finish: a half copy looks like a damaged recording.
class NewFile {
 public:
  static absl::StatusOr<NewFile> Create(std::string path) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", path));
    return NewFile(fd, std::move(path));
  }
  NewFile(NewFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), end_(other.end_), error_(other.error_) {}
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile() {
    if (fd_ < 0) return;
    close(fd_);
    unlink(path_.c_str());
  }

  // Room for `bytes`, zero until written. Its offset.
  uint64_t Reserve(uint64_t bytes) {
    const uint64_t offset = (end_ + kAlignment - 1) / kAlignment * kAlignment;
    end_ = offset + bytes;
    return offset;
  }
  void WriteAt(uint64_t offset, const void* from, uint64_t bytes) {
    uint64_t done = 0;
    while (error_ == 0 && done < bytes) {
      const ssize_t wrote =
          pwrite(fd_, static_cast<const char*>(from) + done, bytes - done, static_cast<off_t>(offset + done));
      if (wrote < 0 && errno != EINTR) error_ = errno;
      if (wrote > 0) done += static_cast<uint64_t>(wrote);
    }
  }
  uint64_t Append(const void* from, uint64_t bytes) {
    const uint64_t offset = Reserve(bytes);
    WriteAt(offset, from, bytes);
    return offset;
  }
  uint64_t end() const { return end_; }

  absl::Status Finish(const std::string& final_path) {
    if (error_ == 0 && ftruncate(fd_, static_cast<off_t>(end_)) != 0) error_ = errno;
    if (error_ != 0) return absl::ErrnoToStatus(error_, absl::StrCat("cannot write ", path_));
    if (rename(path_.c_str(), final_path.c_str()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", path_));
    }
    close(std::exchange(fd_, -1));
    return absl::OkStatus();
  }

 private:
  NewFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  uint64_t end_ = 0;
  int error_ = 0;
};

// Writes the parts in the order that keeps a live recording whole, see raw_reader.h.
class Copier {
 public:
  Copier(RawReader* reader, NewFile* file, Header* header) : reader_(reader), file_(file), header_(header) {}

  absl::Status CopyAll() {
    file_->Reserve(sizeof(Header));
    if (absl::Status status = CopyShards(); !status.ok()) return status;
    bool torn = false;
    PutTable(TableId::kRanges, reader_->ReadRanges(&torn));
    header_->ranges_sequence = torn ? 1 : 0;
    TableCopy<Checkpoint> checkpoints;
    TableCopy<CheckpointEntry> checkpoint_entries;
    reader_->ReadCheckpoints(&checkpoints, &checkpoint_entries);
    PutTable(TableId::kCheckpoints, std::move(checkpoints));
    PutTable(TableId::kCheckpointEntries, std::move(checkpoint_entries));
    TableCopy<MemoryPicture> pictures;
    TableCopy<MemoryUse> picture_uses;
    TableCopy<MemoryArena> picture_arenas;
    reader_->ReadPictures(&pictures, &picture_uses, &picture_arenas);
    PutTable(TableId::kMemoryPictures, std::move(pictures));
    PutTable(TableId::kMemoryUses, std::move(picture_uses));
    PutTable(TableId::kMemoryArenas, std::move(picture_arenas));
    CopyTable<OwnMapping>(TableId::kOwnMappings);
    CopyTable<TimelineSample>(TableId::kTimeline);
    CopyTable<HeapSpace>(TableId::kSpaces);
    CopyTable<FreedByGc>(TableId::kFreedByGc);
    CopyTable<GcAnswer>(TableId::kGcAnswers);
    CopyTable<OlderBuffer>(TableId::kOlderBuffers);
    CopyTable<BufferList>(TableId::kBufferLists);
    PutTable(TableId::kIsolates, reader_->ReadIsolates());
    CopyTable<Stack>(TableId::kStacks);
    CopyTable<Thread>(TableId::kThreads);
    CopyTable<StackNode>(TableId::kStackNodes);
    CopyTable<Frame>(TableId::kFrames);
    CopyTable<JsFunction>(TableId::kJsFunctions);
    CopyTable<Module>(TableId::kModules);
    CopyTable<char>(TableId::kStringBytes);
    if (!problem_.empty()) return Damaged(problem_);
    header_->file_bytes = file_->end();
    file_->WriteAt(0, header_, sizeof(*header_));
    return absl::OkStatus();
  }

 private:
  static absl::Status Damaged(const std::string& what) {
    return absl::DataLossError(absl::StrCat("it is damaged (", what, "): copy the file as it is instead"));
  }

  absl::Status CopyShards() {
    if (!reader_->HasShards()) return Damaged("the blocks are not in the file");
    header_->shards_offset = file_->Reserve(kShardCount * sizeof(Shard));
    std::vector<Shard> shards;
    ShardCopy copy;
    for (uint32_t index = 0; index < kShardCount; ++index) {
      reader_->ReadShard(index, &copy);
      if (copy.unreadable || copy.missing_slots != 0) return Damaged(absl::StrCat("shard ", index, " is not whole"));
      Shard shard = copy.shard;
      shard.offset = file_->Append(copy.slots.data(), copy.slots.size() * sizeof(Block));
      // A copy that is torn for good stays marked: odd, as a process that died leaves it.
      shard.sequence = copy.torn ? shard.sequence | 1 : shard.sequence;
      shards.push_back(shard);
    }
    file_->WriteAt(header_->shards_offset, shards.data(), shards.size() * sizeof(Shard));
    return absl::OkStatus();
  }

  template <typename T>
  void CopyTable(TableId id) {
    PutTable(id, reader_->ReadTable<T>(id));
  }

  // The extents follow one another, the last one only as long as it is used.
  template <typename T>
  void PutTable(TableId id, TableCopy<T> copy) {
    if (!copy.problem.empty() && problem_.empty()) problem_ = std::move(copy.problem);
    Table table = {};
    table.entry_bytes = copy.table.entry_bytes;
    table.first_entries = copy.table.first_entries;
    table.count = copy.entries.size();
    uint64_t done = 0;
    for (uint32_t k = 0; k < kMaxExtents && done < table.count; ++k) {
      const uint64_t here = std::min(static_cast<uint64_t>(table.first_entries) << k, table.count - done);
      table.extents[k] = file_->Append(copy.entries.data() + done, here * sizeof(T));
      done += here;
    }
    header_->tables[static_cast<uint32_t>(id)] = table;
  }

  RawReader* const reader_;
  NewFile* const file_;
  Header* const header_;
  std::string problem_;
};

// Is `to` free, or a recording that is not `from`?
absl::Status CheckDestination(const FileSource& from, const std::string& to) {
  if (absl::Status replaceable = CheckReplaceable(to); !replaceable.ok()) return replaceable;
  struct stat status;
  if (lstat(to.c_str(), &status) != 0) return absl::OkStatus();
  struct stat source;
  if (fstat(from.fd(), &source) != 0 || (source.st_dev == status.st_dev && source.st_ino == status.st_ino)) {
    return absl::InvalidArgumentError("it would replace itself");
  }
  return absl::OkStatus();
}

// What changes when a recording becomes a copy: nobody writes to it or answers requests.
void MarkAsCopy(bool running, Header* header) {
  header->mailbox = {};
  if (!running) return;
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const uint64_t now_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  if (now_ns > header->start_monotonic_ns) header->last_alive_ns = now_ns - header->start_monotonic_ns;
  header->flags |= kIsSnapshot;
}

absl::Status Copy(const std::string& from, const std::string& to) {
  absl::StatusOr<FileSource> source = FileSource::Open(from);
  if (!source.ok()) return source.status();
  absl::StatusOr<Header> header = ReadHeader(*source);
  if (!header.ok()) return header.status();
  if (absl::Status status = CheckDestination(*source, to); !status.ok()) return status;
  absl::StatusOr<NewFile> file = NewFile::Create(absl::StrCat(to, ".", getpid(), ".part"));
  if (!file.ok()) return file.status();

  const bool running = IsProcessRunning(header->pid, header->process_start_ticks);
  RawReader reader(*source, *header, running);
  reader.RememberIsolates();
  header = ReadHeader(*source);
  if (!header.ok()) return header.status();
  MarkAsCopy(running, &*header);
  if (absl::Status status = Copier(&reader, &*file, &*header).CopyAll(); !status.ok()) return status;
  return file->Finish(to);
}

}  // namespace

absl::Status CopyRecording(const std::string& from, const std::string& to) {
  absl::Status status = Copy(from, to);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("cannot copy recording ", from, ": ", status.message()));
}

}  // namespace nodeleak::recording
