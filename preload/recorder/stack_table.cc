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

Stack NewStack(uint32_t node, uint32_t thread, uint32_t depth, uint32_t flags) {
  Stack stack = {};
  stack.node = node;
  stack.thread = thread;
  stack.depth = depth;
  stack.flags = flags;
  return stack;
}
uint64_t HashStack(const Stack& stack) { return HashPair(stack.node, stack.thread + 1ull); }

}  // namespace

class StackTable::Held {
 public:
  Held(SpinLock* lock, Lookup* lookup) : lock_(lock), held_(lock->TryLock()) { lookup->timed_out |= !held_; }
  ~Held() {
    if (held_) lock_->Unlock();
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  explicit operator bool() const { return held_; }

 private:
  SpinLock* lock_;
  bool held_;
};

bool StackTable::Attach(RecordingFile* file) {
  bytes_.Attach(file, TableId::kStringBytes, 1 << 15);
  functions_.Attach(file, TableId::kJsFunctions, 256);
  frames_.Attach(file, TableId::kFrames, 1024);
  nodes_.Attach(file, TableId::kStackNodes, 4096);
  stacks_.Attach(file, TableId::kStacks, 512);
  cache_ = static_cast<uint64_t*>(MapTouchedMemory(sizeof(uint64_t) << kCacheBits));
  frame_cache_ = static_cast<FewFrames*>(MapTouchedMemory(sizeof(FewFrames) << kFrameCacheBits));
  long_cache_ = static_cast<ManyFrames*>(MapMemory(sizeof(ManyFrames) << kLongCacheBits));
  if (cache_ == nullptr || frame_cache_ == nullptr || long_cache_ == nullptr) return false;
  if (AppendNode(0, kNoIndex) != 0) return false;  // the root
  Lookup lookup;
  for (uint32_t id = 0; id < static_cast<uint32_t>(MarkerId::kCount); ++id) {
    const uint32_t frame = InternFrame(
        MarkerFrame(static_cast<MarkerId>(id == 0 ? static_cast<uint64_t>(MarkerId::kTableFull) : id)), &lookup);
    const uint32_t node = frame == kNoIndex ? kNoIndex : InternNode(0, frame, &lookup);
    if (node == kNoIndex) return false;
    marker_stacks_[id] = InternStack(NewStack(node, kNoIndex, 1, recording::kStackIncomplete), &lookup);
  }
  return stacks_.count() > 0;
}

void StackTable::Release() {
  UnmapMemory(cache_, sizeof(uint64_t) << kCacheBits);
  UnmapMemory(frame_cache_, sizeof(FewFrames) << kFrameCacheBits);
  UnmapMemory(long_cache_, sizeof(ManyFrames) << kLongCacheBits);
  strings_.Free();
  first_inner_.Free();
  InternIndex* const indices[] = {&string_index_, &function_index_, &frame_index_, &node_index_, &stack_index_};
  for (InternIndex* index : indices) index->Free();
  cache_ = nullptr;
}

// What is being resolved meanwhile is not kept: it began before forgets_ changed.
void StackTable::ForgetCached() {
  if (cache_ == nullptr) return;
  __atomic_add_fetch(&forgets_, 1, __ATOMIC_SEQ_CST);
  for (uint64_t i = 0; i < 1u << kCacheBits; ++i) __atomic_store_n(&cache_[i], 0, __ATOMIC_RELAXED);
  for (uint64_t i = 0; i < 1u << kFrameCacheBits; ++i) __atomic_store_n(&frame_cache_[i].key_a, 0, __ATOMIC_RELAXED);
  for (uint64_t i = 0; i < 1u << kLongCacheBits; ++i) {
    if (long_cache_[i].key_a != 0) __atomic_store_n(&long_cache_[i].key_a, 0, __ATOMIC_RELAXED);
  }
}

StackTable::Lookup StackTable::BeginLookup(v8::ResolveBuffer* room) const {
  Lookup lookup;
  lookup.room = room;
  lookup.forgets = __atomic_load_n(&forgets_, __ATOMIC_SEQ_CST);
  return lookup;
}

uint32_t StackTable::Find(WalkedStack* walked, uint32_t thread, v8::ResolveBuffer* room, LossId* lost) {
  const uint64_t hash = walked->hash ^ (static_cast<uint64_t>(thread) + 1) * 0xd6e8feb86659fd93ull;
  uint64_t& slot = CacheSlot(hash);
  const uint64_t tag = hash >> kIndexBits << kIndexBits;
  const uint64_t cached = __atomic_load_n(&slot, __ATOMIC_ACQUIRE);
  constexpr uint64_t kIndexMask = (1u << kIndexBits) - 1;
  if ((cached & ~kIndexMask) == tag && cached != 0) return static_cast<uint32_t>(cached & kIndexMask);
  Lookup lookup = BeginLookup(room);
  const uint32_t stack = Intern(walked, thread, &lookup);
  if (stack > kIndexMask) {  // kNoIndex, or more stacks than the cache can name
    *lost = lookup.timed_out ? LossId::kLockTimeout : LossId::kStacksTableFull;
    return 0;
  }
  __atomic_store_n(&slot, tag | stack, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&forgets_, __ATOMIC_SEQ_CST) != lookup.forgets) __atomic_store_n(&slot, 0, __ATOMIC_RELAXED);
  return stack;
}

void StackTable::Learn(const WalkedStack& walked, v8::ResolveBuffer* room) {
  Lookup lookup = BeginLookup(room);
  for (uint32_t i = 0; i < walked.depth; ++i) {
    const WalkedFrame& frame = walked.frames[i];
    ShownFrames shown;
    if (frame.type == WalkedType::kV8 && frame.node == kNoIndex && !ResolveFrame(frame, &lookup, &shown)) return;
  }
}

// From the outermost frame inwards, beginning where the last walk of the thread left off. What cannot be remembered
// (an answer for now only) is asked again the next time, and all inside of it.
uint32_t StackTable::Intern(WalkedStack* walked, uint32_t thread, Lookup* lookup) {
  v8::PageCopies copies;  // the frames of one stack share most of what they are resolved from
  uint32_t known = walked->depth;
  while (known > 0 && walked->frames[known - 1].node == kNoIndex) --known;
  uint32_t node = known > 0 ? walked->frames[known - 1].node : 0;
  uint32_t depth = known > 0 ? walked->frames[known - 1].shown_depth : 0;
  bool cacheable = true;
  for (uint32_t i = known; i < walked->depth; ++i) {
    WalkedFrame& frame = walked->frames[i];
    ShownFrames shown = {};
    if (frame.type != WalkedType::kSkipped && !ResolveFrame(frame, lookup, &shown)) return kNoIndex;
    for (uint32_t at = shown.count; at-- > 0; ++depth) {
      node = InternNode(node, shown.frames[at], lookup);
      if (node == kNoIndex) return kNoIndex;
    }
    cacheable &= shown.cacheable;
    if (!cacheable) continue;
    frame.node = node;
    frame.shown_depth = static_cast<uint16_t>(depth);
  }
  const uint32_t flags =
      (walked->truncated ? recording::kStackTruncated : 0u) | (walked->incomplete ? recording::kStackIncomplete : 0u);
  return InternStack(NewStack(node, thread, depth, flags), lookup);
}

// A zeroed slot has key 0, which no frame has.
template <uint32_t kRoom>
bool StackTable::FindInFrameCache(const CachedFrames<kRoom>& slot, const WalkedFrame& walked,
                                  ShownFrames* shown) const {
  const uint32_t sequence = __atomic_load_n(&slot.sequence, __ATOMIC_ACQUIRE);
  if (walked.key_a == 0 || __atomic_load_n(&slot.key_a, __ATOMIC_RELAXED) != walked.key_a ||
      __atomic_load_n(&slot.key_b, __ATOMIC_RELAXED) != walked.key_b || (sequence & 1) != 0)
    return false;
  uint32_t count = 0;
  for (const uint32_t& frame : slot.frames) {
    shown->frames[count] = __atomic_load_n(&frame, __ATOMIC_RELAXED);
    if (shown->frames[count] == kNoIndex) break;
    ++count;
  }
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  if (__atomic_load_n(&slot.sequence, __ATOMIC_RELAXED) != sequence) return false;
  shown->count = count;
  return true;
}

// Not when another thread is writing the same slot, or what it means was to be forgotten meanwhile.
template <uint32_t kRoom>
void StackTable::KeepInFrameCache(const WalkedFrame& walked, const ShownFrames& shown, uint32_t forgets,
                                  CachedFrames<kRoom>* slot) {
  uint32_t sequence = __atomic_load_n(&slot->sequence, __ATOMIC_RELAXED);
  if ((sequence & 1) != 0 ||
      !__atomic_compare_exchange_n(&slot->sequence, &sequence, sequence + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
    return;
  __atomic_thread_fence(__ATOMIC_RELEASE);
  __atomic_store_n(&slot->key_b, walked.key_b, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < kRoom; ++i)
    __atomic_store_n(&slot->frames[i], i < shown.count ? shown.frames[i] : kNoIndex, __ATOMIC_RELAXED);
  __atomic_store_n(&slot->key_a, walked.key_a, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&forgets_, __ATOMIC_SEQ_CST) != forgets) __atomic_store_n(&slot->key_a, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&slot->sequence, sequence + 2, __ATOMIC_RELEASE);
}

bool StackTable::ResolveFrame(const WalkedFrame& walked, Lookup* lookup, ShownFrames* shown) {
  const uint64_t hash = HashPair(walked.key_a + static_cast<uint64_t>(walked.type), walked.key_b);
  FewFrames& few = frame_cache_[hash >> (64 - kFrameCacheBits)];
  ManyFrames& many = long_cache_[hash >> (64 - kLongCacheBits)];
  shown->cacheable = true;
  if (FindInFrameCache(few, walked, shown)) return true;
  if (walked.type == WalkedType::kV8 && FindInFrameCache(many, walked, shown)) return true;
  shown->count = 0;
  if (walked.type == WalkedType::kV8) {
    if (!ResolveV8(walked, lookup, shown)) return false;
  } else {
    const Frame frame = walked.type == WalkedType::kNative ? NativeFrame(walked.key_a)
                                                           : MarkerFrame(static_cast<MarkerId>(walked.key_a));
    if (!Show(InternFrame(frame, lookup), shown)) return false;
    shown->cacheable = frame.type == static_cast<uint8_t>(FrameType::kNative);
  }
  if (!shown->cacheable) return true;
  if (shown->count <= sizeof few.frames / sizeof few.frames[0]) {
    KeepInFrameCache(walked, *shown, lookup->forgets, &few);
  } else {
    KeepInFrameCache(walked, *shown, lookup->forgets, &many);
  }
  return true;
}

bool StackTable::Show(uint32_t frame, ShownFrames* shown) {
  if (frame == kNoIndex) return false;
  shown->frames[shown->count++] = frame;
  return true;
}

bool StackTable::ResolveV8(const WalkedFrame& walked, Lookup* lookup, ShownFrames* shown) {
  v8::ResolveBuffer* room = lookup->room;
  room->frame_count = 0;
  room->text_bytes = 0;
  if (!v8::ResolveV8Frame(walked, room, &shown->cacheable)) {
    shown->cacheable = false;
    return Show(InternFrame(MarkerFrame(MarkerId::kJsFunctionUnknown), lookup), shown);
  }
  for (uint32_t i = 0; i < room->frame_count; ++i) {
    if (!Show(InternResolved(room->frames[i], lookup), shown)) return false;
  }
  return true;
}

uint32_t StackTable::InternResolved(const v8::ResolvedFrame& resolved, Lookup* lookup) {
  Frame frame = {};
  frame.type = resolved.type;
  frame.tier = resolved.tier;
  frame.inlined = resolved.inlined;
  if (resolved.type == static_cast<uint8_t>(FrameType::kMarker)) {
    frame.module_or_function = kNoIndex;
    frame.value = resolved.value;
    return InternFrame(frame, lookup);
  }
  const auto text = [&](const v8::ResolvedString& string) {
    return InternText(lookup->room->text + string.offset, string.length, lookup);
  };
  JsFunction function = {};
  function.name = text(resolved.name);
  function.file = text(resolved.file);
  function.where = text(resolved.where);
  function.line = resolved.function_line;
  function.column = resolved.function_column;
  function.flags = resolved.function_flags;
  frame.module_or_function = InternFunction(function, lookup);
  if (frame.module_or_function == kNoIndex) return kNoIndex;
  frame.value = resolved.type == static_cast<uint8_t>(FrameType::kWasm)
                    ? resolved.value
                    : static_cast<uint64_t>(resolved.line) << 32 | resolved.column;
  return InternFrame(frame, lookup);
}

StringRef StackTable::InternString(const char* text, uint64_t bytes) {
  Lookup lookup;
  return InternText(text, bytes, &lookup);
}

StringRef StackTable::InternText(const char* text, uint64_t bytes, Lookup* lookup) {
  constexpr uint64_t kMaxString = 1 << 16;
  if (bytes == 0) return {0, 0};
  if (bytes > kMaxString) bytes = kMaxString;
  const uint64_t hash = HashBytes(text, bytes);
  StringRef ref;
  if (FindText(text, bytes, hash, &ref)) return ref;
  const Held held(&lock_, lookup);
  if (!held) return {0, 0};
  return FindText(text, bytes, hash, &ref) ? ref : AppendText(text, bytes, hash);
}

// Strings lie back to back and may cross from one extent into the next: both sides go byte by byte through operator[].
bool StackTable::FindText(const char* text, uint64_t bytes, uint64_t hash, StringRef* ref) const {
  const uint32_t found = string_index_.Find(hash, [&](uint32_t index) {
    *ref = strings_[index];
    if (ref->length != bytes) return false;
    for (uint64_t i = 0; i < bytes; ++i) {
      if (bytes_[ref->offset + i] != text[i]) return false;
    }
    return true;
  });
  return found != InternIndex::kNone;
}

StringRef StackTable::AppendText(const char* text, uint64_t bytes, uint64_t hash) {
  const uint64_t offset = bytes_.count();
  if (offset + bytes > 0xffffffffu || !strings_.Grow(string_count_ + 1) || !bytes_.Reserve(offset + bytes))
    return {0, 0};
  for (uint64_t i = 0; i < bytes; ++i) bytes_[offset + i] = text[i];
  bytes_.Publish(offset + bytes);
  const StringRef ref = {static_cast<uint32_t>(offset), static_cast<uint32_t>(bytes)};
  strings_[string_count_] = ref;
  string_index_.Insert(hash, string_count_++);
  return ref;
}

// find(): the entry there is, or kNoIndex.
template <typename Finder, typename Entry>
uint32_t StackTable::InternIn(const Finder& find, const Entry& entry, uint64_t hash, AppendTable<Entry>* table,
                              InternIndex* index, Lookup* lookup) {
  const uint32_t found = find();
  if (found != kNoIndex) return found;
  const Held held(&lock_, lookup);
  if (!held) return kNoIndex;
  const uint32_t made_meanwhile = find();
  if (made_meanwhile != kNoIndex) return made_meanwhile;
  const uint32_t made = table->Append(entry);
  if (made != kNoIndex) index->Insert(hash, made);
  return made;
}

uint32_t StackTable::InternFunction(const JsFunction& function, Lookup* lookup) {
  const uint64_t hash = HashBytes(&function, sizeof function);
  const auto same = [&](uint32_t i) { return memcmp(&functions_[i], &function, sizeof function) == 0; };
  return InternIn([&] { return function_index_.Find(hash, same); }, function, hash, &functions_, &function_index_,
                  lookup);
}

uint32_t StackTable::InternFrame(const Frame& frame, Lookup* lookup) {
  const uint64_t hash = HashFrame(frame);
  const auto same = [&](uint32_t i) { return SameFrame(frames_[i], frame); };
  return InternIn([&] { return frame_index_.Find(hash, same); }, frame, hash, &frames_, &frame_index_, lookup);
}

// Its totals change meanwhile, node and thread never.
uint32_t StackTable::InternStack(const Stack& stack, Lookup* lookup) {
  const uint64_t hash = HashStack(stack);
  const auto same = [&](uint32_t i) { return stacks_[i].node == stack.node && stacks_[i].thread == stack.thread; };
  return InternIn([&] { return stack_index_.Find(hash, same); }, stack, hash, &stacks_, &stack_index_, lookup);
}

// The first inner node is found by its parent's number, those after it by hash. Most nodes have one: a stack that is
// new from some frame on needs no hash at all, and its nodes lie side by side.
uint32_t StackTable::FindNode(uint32_t parent, uint32_t frame) const {
  const uint32_t first = __atomic_load_n(&first_inner_[parent], __ATOMIC_ACQUIRE);
  if (first == 0) return kNoIndex;
  if (nodes_[first].frame == frame) return first;
  return node_index_.Find(HashPair(parent, frame),
                          [&](uint32_t i) { return nodes_[i].parent == parent && nodes_[i].frame == frame; });
}

uint32_t StackTable::AppendNode(uint32_t parent, uint32_t frame) {
  const uint64_t count = nodes_.count();
  if (count >= kNoIndex || !first_inner_.Grow(static_cast<uint32_t>(count) + 1)) return kNoIndex;
  return nodes_.Append({parent, frame});
}

uint32_t StackTable::InternNode(uint32_t parent, uint32_t frame, Lookup* lookup) {
  const uint32_t found = FindNode(parent, frame);
  if (found != kNoIndex) return found;
  const Held held(&lock_, lookup);
  if (!held) return kNoIndex;
  const uint32_t made_meanwhile = FindNode(parent, frame);
  if (made_meanwhile != kNoIndex) return made_meanwhile;
  const uint32_t made = AppendNode(parent, frame);
  if (made == kNoIndex) return kNoIndex;
  if (first_inner_[parent] == 0) {
    __atomic_store_n(&first_inner_[parent], made, __ATOMIC_RELEASE);
  } else {
    node_index_.Insert(HashPair(parent, frame), made);
  }
  return made;
}

}  // namespace nodeleak::preload
