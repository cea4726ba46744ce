// Runs inside node, on any thread, possibly inside malloc or a collection. Never allocates, waits or throws.
//
// Reading V8's heap without V8's consent. Two ways: LoadWord is for every frame of every walk (a table of granules
// known to be readable, then a plain load); ReadWord and all below it are for resolving.
#pragma once

#include <stdint.h>

#include "preload/base/system.h"
#include "preload/v8/layout.h"

namespace nodeleak::preload::v8 {

// Tagged values of 64-bit V8 without pointer compression: Smis in the upper half, heap objects end in 01, weak in 11.
inline bool IsHeapObject(uint64_t value) { return (value & 3) == 1 && value > 0x10000; }
inline bool IsSmi(uint64_t value) { return (value & 0xffffffffu) == 0; }
inline int32_t SmiValue(uint64_t value) { return static_cast<int32_t>(value >> 32); }
inline uint64_t StripWeak(uint64_t value) { return (value & 3) == 3 ? value & ~uint64_t{2} : value; }

// --- fast: known-good granules
constexpr int kGranuleBits = 16;
constexpr int kPageBits = 12;
constexpr uint32_t kGranuleSets = 4096;
// A tag is (address >> bits) << 1 | kind: kind 0 a granule of 64 KiB, kind 1 a single page of a granule with holes.
extern uint64_t g_granules[kGranuleSets][2];

inline uint32_t GranuleSet(uint64_t tag) {
  return static_cast<uint32_t>((tag * 0x9E3779B97F4A7C15ull) >> 52);  // 12 bits
}
bool CheckReadable(uint64_t address);  // slow: asks the kernel, remembers

inline bool IsReadable(uint64_t address) {
  uint64_t tag = (address >> kGranuleBits) << 1;
  if (__builtin_expect(tag == 0, 0)) return false;  // an empty entry of the table
  const uint64_t* ways = g_granules[GranuleSet(tag)];
  if (__builtin_expect(__atomic_load_n(&ways[0], __ATOMIC_RELAXED) == tag, 1)) return true;
  if (__atomic_load_n(&ways[1], __ATOMIC_RELAXED) == tag) return true;
  return CheckReadable(address);
}
inline bool LoadWord(uint64_t address, uint64_t* value) {
  if (!IsReadable(address)) return false;
  *value = *reinterpret_cast<const volatile uint64_t*>(address);
  return true;
}
// Memory that is gone; granules in it must be asked again. Whether one of them was known to be readable.
bool ForgetReadable(uint64_t start, uint64_t bytes);

// --- by ReadMemory and all below it
// Between collections of the own isolate what its stack leads to stays where it is and mapped: plain loads, from
// granules known to be readable. While a collection may be under way, and while a KernelReads is open on the thread,
// through the kernel, so that not even memory that goes away in that instant is a fault.
//
// For what is not V8's heap: other threads may release it meanwhile.
class KernelReads {
 public:
  KernelReads();
  ~KernelReads();
  KernelReads(const KernelReads&) = delete;
  KernelReads& operator=(const KernelReads&) = delete;

 private:
  bool before_;
};

// While one is open on a thread, its reads come from copies of whole pages, taken as they are first touched: resolving
// a frame reads some hundred words of a dozen pages. A second one on the same thread, and a ninth one in the process,
// simply do nothing.
class PageCopies {
 public:
  PageCopies();
  ~PageCopies();
  PageCopies(const PageCopies&) = delete;
  PageCopies& operator=(const PageCopies&) = delete;

 private:
  bool* taken_ = nullptr;
};
bool ReadMemory(uint64_t address, void* out, uint64_t bytes);

// 0 stands for unreadable, which is never a valid field of an object that matters here
uint64_t ReadWord(uint64_t address);
int32_t ReadInt(uint64_t address);
inline uint64_t ReadField(uint64_t object, int32_t offset) { return ReadWord(object - 1 + offset); }
inline uint64_t ReadField(uint64_t object, Field field) { return ReadField(object, Get(field)); }
// Elements of FixedArray and its kin.
constexpr int32_t kArrayLength = 8;
constexpr int32_t kArrayElements = 16;
inline uint64_t ReadElement(uint64_t array, int32_t index) { return ReadField(array, kArrayElements + 8 * index); }

// A copied object leaves a forwarding word in place of its map while a collection runs: the address of the new copy.
uint64_t FollowForwarding(uint64_t object);
// Map::instance_type; -1 when `object` is none.
int32_t InstanceType(uint64_t object);
inline bool IsOfType(uint64_t object, Field type) { return Has(type) && InstanceType(object) == Get(type); }

// Bytes of memory one after another, read ahead in small pieces.
class ByteStream {
 public:
  ByteStream(uint64_t address, uint64_t bytes) : address_(address), left_(bytes) {}
  bool Next(uint8_t* byte) {
    if (position_ == filled_ && !Fill()) return false;
    *byte = buffer_[position_++];
    return true;
  }

 private:
  bool Fill();
  uint64_t address_;
  uint64_t left_;
  uint32_t position_ = 0;
  uint32_t filled_ = 0;
  uint8_t buffer_[512];
};

// The bytes of a ByteArray or TrustedByteArray. False: it is something else.
bool FindBytes(uint64_t array, uint64_t* address, uint64_t* bytes);

}  // namespace nodeleak::preload::v8
