// Outside. The bytes of a recording: a file that may grow, shrink and change while it is read, or memory.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nodeleak::recording {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t Size() const = 0;  // now
  // Bytes that really take room, to tell a huge file of nothing from a recording.
  virtual uint64_t StoredBytes() const = 0;
  // Can another process change these bytes?
  virtual bool CanChange() const = 0;
  // Reads up to `bytes`; fewer at the end of the file or after an I/O error.
  virtual uint64_t ReadAt(uint64_t offset, void* to, uint64_t bytes) const = 0;

  template <typename T>
  bool ReadValue(uint64_t offset, T* value) const {
    return ReadAt(offset, value, sizeof(T)) == sizeof(T);
  }
};

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(absl::Span<const char> bytes) : bytes_(bytes) {}
  uint64_t Size() const override { return bytes_.size(); }
  uint64_t StoredBytes() const override { return bytes_.size(); }
  bool CanChange() const override { return false; }
  uint64_t ReadAt(uint64_t offset, void* to, uint64_t bytes) const override;

 private:
  absl::Span<const char> bytes_;
};

class FileSource final : public ByteSource {
 public:
  static absl::StatusOr<FileSource> Open(const std::string& path);
  FileSource(FileSource&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileSource& operator=(FileSource&&) = delete;
  ~FileSource() override;

  uint64_t Size() const override;
  uint64_t StoredBytes() const override;
  bool CanChange() const override { return true; }
  uint64_t ReadAt(uint64_t offset, void* to, uint64_t bytes) const override;
  int fd() const { return fd_; }

 private:
  explicit FileSource(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace nodeleak::recording
