// Both worlds. How this folder asks the kernel and gets pages: inside node by the shim's raw system calls, outside by
// libc. Never allocates otherwise, throws, or calls anything that is hooked.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace nodeleak::memory {

inline constexpr uint64_t kPage = 4096;

inline uint64_t Smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }
inline uint64_t Larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

struct System {
  // Raw: a negative result is -errno.
  long (*call)(long number, long a, long b, long c, long d, long e, long f);
  void* (*map)(size_t bytes);  // zeroed pages; nullptr on failure
  void (*unmap)(void* address, size_t bytes);
  const char* folder;  // "/proc/self", "/proc/4242", or a copy of one
  long pid;            // whose memory is read; 0: nobody's
};

// Reads what is at `address` in the process; false where it is not readable or not allowed.
bool ReadMemory(const System& system, uint64_t address, void* out, size_t bytes);

// An open file below system.folder.
class ProcFile {
 public:
  ProcFile(const System& system, const char* name);  // "smaps"; "" and a full path in `folder` work too
  ~ProcFile();
  ProcFile(const ProcFile&) = delete;
  ProcFile& operator=(const ProcFile&) = delete;

  bool valid() const { return fd_ >= 0; }
  long Read(void* to, size_t bytes);  // 0 at the end, negative on errors
  long ReadAt(uint64_t offset, void* to, size_t bytes);

 private:
  const System& system_;
  long fd_;
};

// Calls line(text, length) for each line of a file, without its line break; longer ones are cut at kLongestLine. False
// when the file cannot be read at all.
inline constexpr size_t kLongestLine = 4096 + 128;
template <typename Line>
bool ForEachLine(const System& system, ProcFile* file, Line line) {
  constexpr size_t kBuffer = 64 * 1024;
  char* buffer = static_cast<char*>(system.map(kBuffer));
  if (buffer == nullptr) return false;
  size_t held = 0;
  long got;
  bool any = false;
  while ((got = file->Read(buffer + held, kBuffer - held)) > 0) {
    any = true;
    held += static_cast<size_t>(got);
    size_t begin = 0;
    while (const void* found = memchr(buffer + begin, '\n', held - begin)) {
      const size_t end = static_cast<size_t>(static_cast<const char*>(found) - buffer);
      line(buffer + begin, end - begin < kLongestLine ? end - begin : kLongestLine);
      begin = end + 1;
    }
    if (begin == 0 && held == kBuffer) begin = held;  // no line is that long: skip what cannot be one
    memmove(buffer, buffer + begin, held - begin);
    held -= begin;
  }
  if (held != 0) line(buffer, held < kLongestLine ? held : kLongestLine);
  system.unmap(buffer, kBuffer);
  return any && got >= 0;
}

// Numbers as /proc writes them. *p is moved behind the digits.
uint64_t ParseHex(const char** p, const char* end);
uint64_t ParseDecimal(const char** p, const char* end);
bool StartsWith(const char* text, size_t length, const char* prefix);

// An array of plain entries in pages of its own, zeroed, growing by doubling.
template <typename T>
class PageArray {
 public:
  explicit PageArray(const System& system) : system_(system) {}
  ~PageArray() { Drop(); }
  PageArray(const PageArray&) = delete;
  PageArray& operator=(const PageArray&) = delete;

  // Zeroed entries up to `count`; false when there is no memory.
  bool Resize(size_t count) {
    if (count > capacity_ && !Grow(count)) return false;
    count_ = count;
    return true;
  }
  bool Append(const T& entry) {
    if (!Resize(count_ + 1)) return false;
    entries_[count_ - 1] = entry;
    return true;
  }
  T& operator[](size_t index) { return entries_[index]; }
  const T& operator[](size_t index) const { return entries_[index]; }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  T* begin() { return entries_; }
  T* end() { return entries_ + count_; }
  const T* begin() const { return entries_; }
  const T* end() const { return entries_ + count_; }

 private:
  bool Grow(size_t count) {
    size_t bytes = mapped_ == 0 ? kPage : mapped_;
    while (bytes / sizeof(T) < count) bytes *= 2;
    T* larger = static_cast<T*>(system_.map(bytes));
    if (larger == nullptr) return false;
    if (count_ != 0) memcpy(static_cast<void*>(larger), entries_, count_ * sizeof(T));
    Drop();
    entries_ = larger;
    mapped_ = bytes;
    capacity_ = bytes / sizeof(T);
    return true;
  }
  void Drop() {
    if (entries_ != nullptr) system_.unmap(entries_, mapped_);
    entries_ = nullptr;
  }

  const System& system_;
  T* entries_ = nullptr;
  size_t mapped_ = 0, count_ = 0, capacity_ = 0;
};

// libc's qsort may allocate.
template <typename T, typename Less>
void SortInPlace(T* entries, size_t count, Less less) {
  const auto sift_down = [&](size_t root, size_t end) {
    for (size_t child; (child = 2 * root + 1) < end; root = child) {
      if (child + 1 < end && less(entries[child], entries[child + 1])) ++child;
      if (!less(entries[root], entries[child])) return;
      const T moved = entries[root];
      entries[root] = entries[child];
      entries[child] = moved;
    }
  };
  for (size_t root = count / 2; root-- > 0;) sift_down(root, count);
  for (size_t end = count; end-- > 1;) {
    const T moved = entries[0];
    entries[0] = entries[end];
    entries[end] = moved;
    sift_down(0, end);
  }
}

}  // namespace nodeleak::memory
