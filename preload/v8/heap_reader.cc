#include "preload/v8/heap_reader.h"

#include <string.h>

#include "preload/base/guard.h"
#include "preload/base/safe_read.h"

namespace nodeleak::preload::v8 {

alignas(64) uint64_t g_granules[kGranuleSets][2];

namespace {

// Bumped when memory goes away: an answer of the kernel that is older than that is not remembered.
uint32_t g_epoch;

constexpr uint64_t kPageBytes = 1u << kPageBits;
constexpr int kPagesPerGranule = 1 << (kGranuleBits - kPageBits);

uint64_t PageTag(uint64_t address) { return (address >> kPageBits) << 1 | 1; }

bool Remembered(uint64_t tag) {
  const uint64_t* ways = g_granules[GranuleSet(tag)];
  return __atomic_load_n(&ways[0], __ATOMIC_RELAXED) == tag || __atomic_load_n(&ways[1], __ATOMIC_RELAXED) == tag;
}

// Whether several pages of the granule are.
bool AreNeighboursRemembered(uint64_t address) {
  constexpr int kSeveral = 3;
  const uint64_t first = address >> kGranuleBits << kGranuleBits;
  int count = 0;
  for (int i = 0; i < kPagesPerGranule; ++i) count += Remembered(PageTag(first + i * kPageBytes)) ? 1 : 0;
  return count >= kSeveral;
}

// Whether it was remembered.
bool Forget(uint64_t tag) {
  bool known = false;
  for (uint64_t& way : g_granules[GranuleSet(tag)]) {
    uint64_t expected = tag;
    known |= __atomic_compare_exchange_n(&way, &expected, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
  }
  return known;
}

void Remember(uint64_t tag, uint32_t epoch) {
  uint64_t* ways = g_granules[GranuleSet(tag)];
  __atomic_store_n(&ways[1], __atomic_load_n(&ways[0], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  __atomic_store_n(&ways[0], tag, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&g_epoch, __ATOMIC_SEQ_CST) != epoch) Forget(tag);
}

}  // namespace

bool CheckReadable(uint64_t address) {
  if (Remembered(PageTag(address))) return true;
  uint32_t epoch = __atomic_load_n(&g_epoch, __ATOMIC_SEQ_CST);
  if (!IsPageReadable(address)) return false;
  // The whole granule is asked for only where more of it is used: that waits for the lock of the address space, which
  // threads that start take all the time, and the page alone does not.
  const bool whole =
      AreNeighboursRemembered(address) && ArePagesReadable(address >> kGranuleBits << kGranuleBits, kPagesPerGranule);
  Remember(whole ? (address >> kGranuleBits) << 1 : PageTag(address), epoch);
  return true;
}

bool ForgetReadable(uint64_t start, uint64_t bytes) {
  __atomic_add_fetch(&g_epoch, 1u, __ATOMIC_SEQ_CST);
  uint64_t end = start + bytes;
  uint64_t first_page = start >> kPageBits, last_page = (end + kPageBytes - 1) >> kPageBits;
  bool known = false;
  if (last_page - first_page <= kGranuleSets) {
    for (uint64_t page = first_page; page < last_page; ++page) known |= Forget(page << 1 | 1);
    for (uint64_t granule = start >> kGranuleBits; granule <= (end - 1) >> kGranuleBits; ++granule)
      known |= Forget(granule << 1);
    return known;
  }
  for (auto& set : g_granules) {
    for (uint64_t& way : set) {
      uint64_t tag = __atomic_load_n(&way, __ATOMIC_RELAXED);
      uint64_t at = (tag & 1) != 0 ? (tag >> 1) << kPageBits : (tag >> 1) << kGranuleBits;
      if (tag != 0 && at + (1u << kGranuleBits) > start && at < end) known |= Forget(tag);
    }
  }
  return known;
}

namespace {

struct PageCopy {
  uint64_t page;  // number + 1; 0: unused
  bool readable;
  uint8_t bytes[kPageBytes];
};
constexpr uint32_t kPageCopies = 32;
constexpr uint32_t kSets = 8;
// The types of maps met since the last collection of the thread that uses the set: maps are on pages of their own, and
// a page is read by a system call.
struct KnownTypes {
  const ThreadLocals* thread;
  uint32_t gc_epoch;
  struct {
    uint64_t map;
    uint16_t type;
  } entries[256];
  static uint32_t SlotOf(uint64_t map) { return static_cast<uint32_t>((map * 0x9E3779B97F4A7C15ull) >> 56); }
};
struct PageCopySet {
  PageCopy pages[kPageCopies];
  KnownTypes types;
  bool taken;
};
PageCopySet g_page_copies[kSets];
__thread PageCopySet* t_page_copies __attribute__((tls_model("initial-exec")));
__thread bool t_kernel_reads __attribute__((tls_model("initial-exec")));

const PageCopy* CopyPage(uint64_t page) {
  PageCopy& copy = t_page_copies->pages[page % kPageCopies];
  if (copy.page != page + 1) {
    copy.page = page + 1;
    copy.readable = SafeRead(page << kPageBits, copy.bytes, sizeof copy.bytes);
  }
  return &copy;
}

}  // namespace

KernelReads::KernelReads() : before_(t_kernel_reads) { t_kernel_reads = true; }
KernelReads::~KernelReads() { t_kernel_reads = before_; }

PageCopies::PageCopies() {
  if (t_page_copies != nullptr) return;
  for (PageCopySet& set : g_page_copies) {
    if (__atomic_exchange_n(&set.taken, true, __ATOMIC_ACQUIRE)) continue;
    for (PageCopy& copy : set.pages) copy.page = 0;
    taken_ = &set.taken;
    t_page_copies = &set;
    return;
  }
}

PageCopies::~PageCopies() {
  if (taken_ == nullptr) return;
  t_page_copies = nullptr;
  __atomic_store_n(taken_, false, __ATOMIC_RELEASE);
}

namespace {

// `find(address)`: where the bytes of that address may be read, up to the end of its page; nullptr: nowhere.
template <typename Find>
bool CopyByPages(uint64_t address, uint8_t* to, uint64_t bytes, Find find) {
  while (bytes > 0) {
    const uint8_t* from = find(address);
    if (from == nullptr) return false;
    const uint64_t left = kPageBytes - (address & (kPageBytes - 1));
    const uint64_t here = bytes < left ? bytes : left;
    memcpy(to, from, here);
    to += here;
    address += here;
    bytes -= here;
  }
  return true;
}

const uint8_t* InPlace(uint64_t address) {
  return IsReadable(address) ? reinterpret_cast<const uint8_t*>(address) : nullptr;
}

const uint8_t* InCopy(uint64_t address) {
  const PageCopy* copy = CopyPage(address >> kPageBits);
  return copy->readable ? copy->bytes + (address & (kPageBytes - 1)) : nullptr;
}

}  // namespace

bool ReadMemory(uint64_t address, void* out, uint64_t bytes) {
  uint8_t* to = static_cast<uint8_t*>(out);
  if (t_locals.watches_gc && !t_kernel_reads) return CopyByPages(address, to, bytes, InPlace);
  if (t_page_copies == nullptr) return SafeRead(address, out, bytes);
  return CopyByPages(address, to, bytes, InCopy);
}

uint64_t ReadWord(uint64_t address) {
  uint64_t value = 0;
  return ReadMemory(address, &value, sizeof value) ? value : 0;
}

int32_t ReadInt(uint64_t address) {
  int32_t value = 0;
  return ReadMemory(address, &value, sizeof value) ? value : 0;
}

uint64_t FollowForwarding(uint64_t object) {
  if (!IsHeapObject(object)) return object;
  uint64_t map = ReadWord(object - 1);
  return map != 0 && (map & 3) == 0 ? map | 1 : object;
}

namespace {

// nullptr: none may be kept, as a collection may be moving maps.
KnownTypes* TypesOfThisThread() {
  if (t_page_copies == nullptr || !t_locals.watches_gc) return nullptr;
  KnownTypes& types = t_page_copies->types;
  if (types.thread == &t_locals && types.gc_epoch == t_locals.gc_epoch) return &types;
  memset(&types, 0, sizeof types);
  types.thread = &t_locals;
  types.gc_epoch = t_locals.gc_epoch;
  return &types;
}

}  // namespace

int32_t InstanceType(uint64_t object) {
  if (!IsHeapObject(object)) return -1;
  uint64_t map = ReadWord(object - 1);
  if (map != 0 && (map & 3) == 0) map = ReadWord(map);  // forwarded: the new copy has the map
  if (!IsHeapObject(map)) return -1;
  KnownTypes* known = TypesOfThisThread();
  if (known != nullptr && known->entries[KnownTypes::SlotOf(map)].map == map)
    return known->entries[KnownTypes::SlotOf(map)].type;
  uint16_t type;
  if (!ReadMemory(map - 1 + Get(Field::kMapInstanceType), &type, sizeof type)) return -1;
  if (known != nullptr) known->entries[KnownTypes::SlotOf(map)] = {map, type};
  return type;
}

bool ByteStream::Fill() {
  uint32_t bytes = left_ < sizeof buffer_ ? static_cast<uint32_t>(left_) : static_cast<uint32_t>(sizeof buffer_);
  if (bytes == 0 || !ReadMemory(address_, buffer_, bytes)) return false;
  address_ += bytes;
  left_ -= bytes;
  position_ = 0;
  filled_ = bytes;
  return true;
}

bool FindBytes(uint64_t array, uint64_t* address, uint64_t* bytes) {
  array = FollowForwarding(array);
  int32_t type = InstanceType(array);
  if (type < 0 || (type != Get(Field::kTypeByteArray) && type != Get(Field::kTypeTrustedByteArray))) return false;
  uint64_t length = ReadField(array, kArrayLength);
  constexpr int32_t kMostBytes = 64 << 20;
  if (!IsSmi(length) || SmiValue(length) <= 0 || SmiValue(length) > kMostBytes) return false;
  *address = array - 1 + kArrayElements;
  *bytes = static_cast<uint64_t>(SmiValue(length));
  return true;
}

}  // namespace nodeleak::preload::v8
