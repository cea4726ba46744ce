#include "preload/recorder/stack_table.h"

#include <string.h>

#include "preload/unwind/modules.h"
#include "preload/v8/heap_reader.h"

namespace nodeleak::preload {
namespace {

using recording::Frame;
using recording::FrameType;
using recording::JsFunction;
using recording::kNoIndex;
using recording::LossId;
using recording::MarkerId;
using recording::Stack;
using recording::StringRef;
using recording::TableId;

uint64_t HashFrame(const Frame& frame) {
  const uint64_t head = static_cast<uint64_t>(frame.type) << 32 | frame.module_or_function;
  return HashBytes(&frame.value, sizeof frame.value, head * 0x9e3779b97f4a7c15ull);
}
bool SameFrame(const Frame& a, const Frame& b) {
  return a.type == b.type && a.module_or_function == b.module_or_function && a.value == b.value;
}
uint64_t HashPair(uint64_t a, uint64_t b) {
  const uint64_t pair[2] = {a, b};
  return HashBytes(pair, sizeof pair);
}

Frame MarkerFrame(MarkerId id) {
  Frame frame = {};
  frame.type = static_cast<uint8_t>(FrameType::kMarker);
  frame.module_or_function = kNoIndex;
  frame.value = static_cast<uint64_t>(id);
  return frame;
}

Frame NativeFrame(uint64_t pc) {
  const ModuleInfo* module = FindModule(pc - 1);
  if (module == nullptr) return MarkerFrame(MarkerId::kUnknownCode);
  Frame frame = {};
  frame.type = static_cast<uint8_t>(FrameType::kNative);
  frame.module_or_function = module->recording_index;
  frame.value = pc - module->bias;
  return frame;
}

// An array beside the recording, twice as large; false: no memory, it is as it was. `map`: MapMemory or its sibling.
template <typename T>
bool Double(void* (*map)(size_t), uint32_t first_capacity, T** array, uint32_t* capacity) {
  const uint32_t larger_capacity = *capacity == 0 ? first_capacity : *capacity * 2;
  T* larger = static_cast<T*>(map(larger_capacity * sizeof(T)));
  if (larger == nullptr) return false;
  if (*capacity > 0) memcpy(larger, *array, *capacity * sizeof(T));
  UnmapMemory(*array, *capacity * sizeof(T));
  *array = larger;
  *capacity = larger_capacity;
  return true;
}

}  // namespace

bool StackTable::Attach(RecordingFile* file) {
  bytes_.Attach(file, TableId::kStringBytes, 1 << 15);
  functions_.Attach(file, TableId::kJsFunctions, 256);
  frames_.Attach(file, TableId::kFrames, 1024);
  nodes_.Attach(file, TableId::kStackNodes, 4096);
  stacks_.Attach(file, TableId::kStacks, 512);
  cache_ = static_cast<uint64_t*>(MapTouchedMemory(sizeof(uint64_t) << kCacheBits));
  frame_cache_ = static_cast<CachedFrames*>(MapTouchedMemory(sizeof(CachedFrames) << kFrameCacheBits));
  resolve_ = static_cast<v8::ResolveBuffer*>(MapMemory(sizeof(v8::ResolveBuffer)));
  if (cache_ == nullptr || frame_cache_ == nullptr || resolve_ == nullptr) return false;
  if (nodes_.Append({0, kNoIndex}) != 0) return false;  // the root
  for (uint32_t id = 0; id < static_cast<uint32_t>(MarkerId::kCount); ++id) {
    const uint32_t frame =
        InternFrame(MarkerFrame(static_cast<MarkerId>(id == 0 ? static_cast<uint64_t>(MarkerId::kTableFull) : id)));
    const uint32_t node = frame == kNoIndex ? kNoIndex : InternNode(0, frame);
    marker_stacks_[id] = node == kNoIndex ? 0 : InternStack(node, kNoIndex, 1, recording::kStackIncomplete);
    if (node == kNoIndex) return false;
  }
  return stacks_.count() > 0;
}

void StackTable::Release() {
  UnmapMemory(cache_, sizeof(uint64_t) << kCacheBits);
  UnmapMemory(frame_cache_, sizeof(CachedFrames) << kFrameCacheBits);
  UnmapMemory(resolve_, sizeof(v8::ResolveBuffer));
  UnmapMemory(strings_, string_capacity_ * sizeof(InternedString));
  UnmapMemory(first_inner_, first_inner_capacity_ * sizeof(uint32_t));
  InternIndex* const indices[] = {&string_index_, &function_index_, &frame_index_, &node_index_, &stack_index_};
  for (InternIndex* index : indices) index->Free();
  cache_ = nullptr;
}

void StackTable::ForgetCached() {
  if (cache_ == nullptr) return;
  for (uint64_t i = 0; i < 1u << kCacheBits; ++i) __atomic_store_n(&cache_[i], 0, __ATOMIC_RELAXED);
  if (!lock_.TryLock()) return;
  memset(frame_cache_, 0, sizeof(CachedFrames) << kFrameCacheBits);
  lock_.Unlock();
}

uint32_t StackTable::Find(WalkedStack* walked, uint32_t thread, LossId* lost) {
  const uint64_t hash = walked->hash ^ (static_cast<uint64_t>(thread) + 1) * 0xd6e8feb86659fd93ull;
  uint64_t& slot = CacheSlot(hash);
  const uint64_t tag = hash >> kIndexBits << kIndexBits;
  const uint64_t cached = __atomic_load_n(&slot, __ATOMIC_RELAXED);
  constexpr uint64_t kIndexMask = (1u << kIndexBits) - 1;
  if ((cached & ~kIndexMask) == tag && cached != 0) return static_cast<uint32_t>(cached & kIndexMask);
  if (!lock_.TryLock()) {
    *lost = LossId::kLockTimeout;
    return 0;
  }
  const uint32_t stack = Intern(walked, thread);
  lock_.Unlock();
  if (stack > kIndexMask) {  // kNoIndex, or more stacks than the cache can name
    *lost = LossId::kStacksTableFull;
    return 0;
  }
  __atomic_store_n(&slot, tag | stack, __ATOMIC_RELAXED);
  return stack;
}

// From the outermost frame inwards, beginning where the last walk of the thread left off. What cannot be remembered
// (an answer for now only) is asked again the next time, and all inside of it.
uint32_t StackTable::Intern(WalkedStack* walked, uint32_t thread) {
  v8::PageCopies copies;  // the frames of one stack share most of what they are resolved from
  uint32_t known = walked->depth;
  while (known > 0 && walked->frames[known - 1].node == kNoIndex) --known;
  uint32_t node = known > 0 ? walked->frames[known - 1].node : 0;
  uint32_t depth = known > 0 ? walked->frames[known - 1].shown_depth : 0;
  bool cacheable = true;
  for (uint32_t i = known; i < walked->depth; ++i) {
    WalkedFrame& frame = walked->frames[i];
    ShownFrames shown = {};
    if (frame.type != WalkedType::kSkipped && !ResolveFrame(frame, &shown)) return kNoIndex;
    for (uint32_t at = shown.count; at-- > 0; ++depth) {
      node = InternNode(node, shown.frames[at]);
      if (node == kNoIndex) return kNoIndex;
    }
    cacheable &= shown.cacheable;
    if (!cacheable) continue;
    frame.node = node;
    frame.shown_depth = static_cast<uint16_t>(depth);
  }
  const uint32_t flags =
      (walked->truncated ? recording::kStackTruncated : 0u) | (walked->incomplete ? recording::kStackIncomplete : 0u);
  return InternStack(node, thread, depth, flags);
}

bool StackTable::ResolveFrame(const WalkedFrame& walked, ShownFrames* shown) {
  const uint64_t hash = HashPair(walked.key_a + static_cast<uint64_t>(walked.type), walked.key_b);
  CachedFrames& cached = frame_cache_[hash >> (64 - kFrameCacheBits)];
  shown->cacheable = true;
  // A zeroed slot has key 0, which no frame has.
  if (cached.key_a == walked.key_a && cached.key_b == walked.key_b && cached.key_a != 0) {
    shown->count = cached.count;
    memcpy(shown->frames, cached.frames, cached.count * sizeof shown->frames[0]);
    return true;
  }
  if (walked.type == WalkedType::kV8) {
    if (!ResolveV8(walked, shown)) return false;
  } else {
    const Frame frame = walked.type == WalkedType::kNative ? NativeFrame(walked.key_a)
                                                           : MarkerFrame(static_cast<MarkerId>(walked.key_a));
    if (!Show(InternFrame(frame), shown)) return false;
    shown->cacheable = frame.type == static_cast<uint8_t>(FrameType::kNative);
  }
  if (shown->cacheable && shown->count <= kInlineFrames) {
    cached.key_a = walked.key_a;
    cached.key_b = walked.key_b;
    cached.count = shown->count;
    memcpy(cached.frames, shown->frames, shown->count * sizeof shown->frames[0]);
  }
  return true;
}

bool StackTable::Show(uint32_t frame, ShownFrames* shown) {
  if (frame == kNoIndex) return false;
  shown->frames[shown->count++] = frame;
  return true;
}

bool StackTable::ResolveV8(const WalkedFrame& walked, ShownFrames* shown) {
  resolve_->frame_count = 0;
  resolve_->text_bytes = 0;
  if (!v8::ResolveV8Frame(walked, resolve_, &shown->cacheable)) {
    shown->cacheable = false;
    return Show(InternFrame(MarkerFrame(MarkerId::kJsFunctionUnknown)), shown);
  }
  for (uint32_t i = 0; i < resolve_->frame_count; ++i) {
    if (!Show(InternResolved(resolve_->frames[i]), shown)) return false;
  }
  return true;
}

uint32_t StackTable::InternResolved(const v8::ResolvedFrame& resolved) {
  Frame frame = {};
  frame.type = resolved.type;
  frame.tier = resolved.tier;
  frame.inlined = resolved.inlined;
  if (resolved.type == static_cast<uint8_t>(FrameType::kMarker)) {
    frame.module_or_function = kNoIndex;
    frame.value = resolved.value;
    return InternFrame(frame);
  }
  JsFunction function = {};
  function.name = InternStringLocked(resolve_->text + resolved.name.offset, resolved.name.length);
  function.file = InternStringLocked(resolve_->text + resolved.file.offset, resolved.file.length);
  function.where = InternStringLocked(resolve_->text + resolved.where.offset, resolved.where.length);
  function.line = resolved.function_line;
  function.column = resolved.function_column;
  function.flags = resolved.function_flags;
  frame.module_or_function = InternFunction(function);
  if (frame.module_or_function == kNoIndex) return kNoIndex;
  frame.value = resolved.type == static_cast<uint8_t>(FrameType::kWasm)
                    ? resolved.value
                    : static_cast<uint64_t>(resolved.line) << 32 | resolved.column;
  return InternFrame(frame);
}

StringRef StackTable::InternString(const char* text, uint64_t bytes) {
  if (!lock_.TryLock()) return {0, 0};
  const StringRef ref = InternStringLocked(text, bytes);
  lock_.Unlock();
  return ref;
}

// Strings lie back to back and may cross from one extent into the next: both sides go byte by byte through operator[].
StringRef StackTable::InternStringLocked(const char* text, uint64_t bytes) {
  constexpr uint64_t kMaxString = 1 << 16;
  if (bytes == 0) return {0, 0};
  if (bytes > kMaxString) bytes = kMaxString;
  const uint64_t hash = HashBytes(text, bytes);
  const uint32_t found = string_index_.Find(hash, [&](uint32_t index) {
    const StringRef ref = strings_[index].ref;
    if (ref.length != bytes) return false;
    for (uint64_t i = 0; i < bytes; ++i) {
      if (bytes_[ref.offset + i] != text[i]) return false;
    }
    return true;
  });
  if (found != InternIndex::kNone) return strings_[found].ref;
  const uint64_t offset = bytes_.count();
  if (offset + bytes > 0xffffffffu || !GrowStrings() || !bytes_.Reserve(offset + bytes)) return {0, 0};
  for (uint64_t i = 0; i < bytes; ++i) bytes_[offset + i] = text[i];
  bytes_.Publish(offset + bytes);
  const StringRef ref = {static_cast<uint32_t>(offset), static_cast<uint32_t>(bytes)};
  strings_[string_count_] = {ref, hash};
  string_index_.Insert(hash, string_count_++, [this](uint32_t index) { return strings_[index].hash; });
  return ref;
}

bool StackTable::GrowStrings() {
  return string_count_ < string_capacity_ || Double(MapMemory, 4096, &strings_, &string_capacity_);
}

uint32_t StackTable::InternFunction(const JsFunction& function) {
  const auto hash_of = [](const JsFunction& f) { return HashBytes(&f, sizeof f); };
  const uint64_t hash = hash_of(function);
  const uint32_t found =
      function_index_.Find(hash, [&](uint32_t i) { return memcmp(&functions_[i], &function, sizeof function) == 0; });
  if (found != InternIndex::kNone) return found;
  const uint32_t index = functions_.Append(function);
  if (index != kNoIndex) function_index_.Insert(hash, index, [&](uint32_t i) { return hash_of(functions_[i]); });
  return index;
}

uint32_t StackTable::InternFrame(const Frame& frame) {
  const uint64_t hash = HashFrame(frame);
  const uint32_t found = frame_index_.Find(hash, [&](uint32_t i) { return SameFrame(frames_[i], frame); });
  if (found != InternIndex::kNone) return found;
  const uint32_t index = frames_.Append(frame);
  if (index != kNoIndex) frame_index_.Insert(hash, index, [this](uint32_t i) { return HashFrame(frames_[i]); });
  return index;
}

// The first inner node is found by its parent's number, those after it by hash. Most nodes have one: a stack that is
// new from some frame on needs no hash at all, and its nodes lie side by side.
uint32_t StackTable::InternNode(uint32_t parent, uint32_t frame) {
  uint32_t* const first = FirstInner(parent);
  if (first != nullptr) {
    if (*first != 0 && nodes_[*first].frame == frame) return *first;
    if (*first == 0) {
      const uint32_t index = nodes_.Append({parent, frame});
      if (index != kNoIndex) *first = index;
      return index;
    }
  }
  const uint64_t hash = HashPair(parent, frame);
  const uint32_t found =
      node_index_.Find(hash, [&](uint32_t i) { return nodes_[i].parent == parent && nodes_[i].frame == frame; });
  if (found != InternIndex::kNone) return found;
  const uint32_t index = nodes_.Append({parent, frame});
  if (index != kNoIndex) {
    node_index_.Insert(hash, index, [this](uint32_t i) { return HashPair(nodes_[i].parent, nodes_[i].frame); });
  }
  return index;
}

uint32_t* StackTable::FirstInner(uint32_t node) {
  // Read before it is written: with its pages.
  if (node >= first_inner_capacity_ && !Double(MapTouchedMemory, 1u << 14, &first_inner_, &first_inner_capacity_))
    return nullptr;
  return &first_inner_[node];
}

uint32_t StackTable::InternStack(uint32_t node, uint32_t thread, uint32_t depth, uint32_t flags) {
  const uint64_t hash = HashPair(node, thread + 1ull);
  const uint32_t found =
      stack_index_.Find(hash, [&](uint32_t i) { return stacks_[i].node == node && stacks_[i].thread == thread; });
  if (found != InternIndex::kNone) return found;
  Stack stack = {};
  stack.node = node;
  stack.thread = thread;
  stack.depth = depth;
  stack.flags = flags;
  const uint32_t index = stacks_.Append(stack);
  if (index != kNoIndex) {
    stack_index_.Insert(hash, index,
                        [this](uint32_t i) { return HashPair(stacks_[i].node, stacks_[i].thread + 1ull); });
  }
  return index;
}

}  // namespace nodeleak::preload
