// Runs inside node, on any thread, possibly inside malloc. Never allocates through a hooked allocator, never throws.
//
// Distinct stacks. A walked stack is looked up by the hash of its raw keys in a small lock-free cache. Of one not found
// there the frames are resolved to what a person sees and interned: strings, functions, frames, nodes (shared outer
// parts) and the stack. The cache may forget; the interned tables are the truth, so nothing is ever recorded twice.
// All that is there already is found without a lock, and nothing is resolved under it: it is held for as long as one
// entry takes, so that a thread that loses the processor seldom holds it.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
#include "preload/recorder/growing_array.h"
#include "preload/recorder/intern_index.h"
#include "preload/unwind/stack_walk.h"
#include "preload/v8/js_frames.h"
#include "recording/layout.h"

namespace nodeleak::preload {

class StackTable {
 public:
  bool Attach(RecordingFile* file);
  void Release();  // the memory beside the recording

  // The Stack of (walked, thread). 0 ("unknown") when the recording is full or the lock was not to be had; *lost tells
  // which. kCount: nothing lost.
  // Leaves in `walked` what the next Find of the same thread can begin from. `room`: the thread's own.
  uint32_t Find(WalkedStack* walked, uint32_t thread, v8::ResolveBuffer* room, recording::LossId* lost);
  // Resolves the V8 frames of it that were not met before, for a Find that comes when that is dear.
  void Learn(const WalkedStack& walked, v8::ResolveBuffer* room);
  // A stack of one marker, made at the start.
  uint32_t MarkerStack(recording::MarkerId marker) const { return marker_stacks_[static_cast<uint32_t>(marker)]; }

  recording::Stack& operator[](uint32_t index) const { return stacks_[index]; }
  uint64_t count() const { return stacks_.count(); }

  recording::StringRef InternString(const char* text, uint64_t bytes);
  void ForgetCached();  // pcs may mean something else now

 private:
  static constexpr uint32_t kIndexBits = 24;  // up to 16 million stacks
  static constexpr uint32_t kCacheBits = 16;
  static constexpr uint32_t kFrameCacheBits = 14;
  static constexpr uint32_t kLongCacheBits = 10;

  template <uint32_t kRoom>
  struct CachedFrames {  // raw frame -> frames of a person
    uint64_t key_a, key_b;
    uint32_t sequence;       // odd while it is written
    uint32_t frames[kRoom];  // kNoIndex behind the last
  };
  using FewFrames = CachedFrames<3>;
  static_assert(sizeof(FewFrames) == 32);
  using ManyFrames = CachedFrames<v8::kMaxResolvedFrames>;  // of optimized code that has much inlined

  uint64_t& CacheSlot(uint64_t hash) const { return cache_[hash & ((1u << kCacheBits) - 1)]; }
  // What one raw frame is to a person, innermost first.
  struct ShownFrames {
    uint32_t count;
    bool cacheable = true;  // the same the next time
    uint32_t frames[v8::kMaxResolvedFrames];
  };

  // One look-up of a stack.
  struct Lookup {
    v8::ResolveBuffer* room = nullptr;
    uint32_t forgets = 0;    // forgets_ when it began
    bool timed_out = false;  // the lock was not to be had
  };
  class Held;
  Lookup BeginLookup(v8::ResolveBuffer* room) const;

  uint32_t Intern(WalkedStack* walked, uint32_t thread, Lookup* lookup);
  // False when the recording is full, or the lock was not to be had.
  bool ResolveFrame(const WalkedFrame& walked, Lookup* lookup, ShownFrames* shown);
  bool ResolveV8(const WalkedFrame& walked, Lookup* lookup, ShownFrames* shown);
  static bool Show(uint32_t frame, ShownFrames* shown);
  template <uint32_t kRoom>
  bool FindInFrameCache(const CachedFrames<kRoom>& slot, const WalkedFrame& walked, ShownFrames* shown) const;
  template <uint32_t kRoom>
  void KeepInFrameCache(const WalkedFrame& walked, const ShownFrames& shown, uint32_t forgets,
                        CachedFrames<kRoom>* slot);
  uint32_t InternResolved(const v8::ResolvedFrame& resolved, Lookup* lookup);
  // Each looks without the lock, then under it, then makes the entry. kNoIndex: see ResolveFrame.
  uint32_t InternFrame(const recording::Frame& frame, Lookup* lookup);
  uint32_t InternFunction(const recording::JsFunction& function, Lookup* lookup);
  uint32_t InternNode(uint32_t parent, uint32_t frame, Lookup* lookup);
  uint32_t InternStack(const recording::Stack& stack, Lookup* lookup);
  recording::StringRef InternText(const char* text, uint64_t bytes, Lookup* lookup);
  template <typename Finder, typename Entry>
  uint32_t InternIn(const Finder& find, const Entry& entry, uint64_t hash, AppendTable<Entry>* table,
                    InternIndex* index, Lookup* lookup);
  uint32_t FindNode(uint32_t parent, uint32_t frame) const;
  uint32_t AppendNode(uint32_t parent, uint32_t frame);
  bool FindText(const char* text, uint64_t bytes, uint64_t hash, recording::StringRef* ref) const;
  recording::StringRef AppendText(const char* text, uint64_t bytes, uint64_t hash);

  SpinLock lock_;
  uint32_t forgets_ = 0;
  AppendTable<char> bytes_;
  AppendTable<recording::JsFunction> functions_;
  AppendTable<recording::Frame> frames_;
  AppendTable<recording::StackNode> nodes_;
  AppendTable<recording::Stack> stacks_;
  InternIndex string_index_, function_index_, frame_index_, node_index_, stack_index_;
  GrowingArray<recording::StringRef> strings_;  // by number in string_index_
  uint32_t string_count_ = 0;
  GrowingArray<uint32_t> first_inner_;  // by node; 0: it has none
  uint64_t* cache_ = nullptr;           // tag << kIndexBits | stack
  FewFrames* frame_cache_ = nullptr;
  ManyFrames* long_cache_ = nullptr;
  uint32_t marker_stacks_[static_cast<uint32_t>(recording::MarkerId::kCount)] = {};
};

}  // namespace nodeleak::preload
