// Runs inside node, on any thread, possibly inside malloc. Never allocates through a hooked allocator, never throws.
//
// Distinct stacks. A walked stack is looked up by the hash of its raw keys in a small lock-free cache; only a stack not
// found there takes the lock, resolves its frames to what a person sees, and interns them: strings, functions, frames,
// nodes (shared outer parts) and the stack. The cache may forget; the interned tables are the truth, so nothing is ever
// recorded twice.
#pragma once

#include <stdint.h>

#include "preload/recorder/append_table.h"
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
  // Leaves in `walked` what the next Find of the same thread can begin from.
  uint32_t Find(WalkedStack* walked, uint32_t thread, recording::LossId* lost);
  // A stack of one marker, made at the start.
  uint32_t MarkerStack(recording::MarkerId marker) const { return marker_stacks_[static_cast<uint32_t>(marker)]; }

  recording::Stack& operator[](uint32_t index) const { return stacks_[index]; }
  uint64_t count() const { return stacks_.count(); }

  recording::StringRef InternString(const char* text, uint64_t bytes);  // takes the lock
  void ForgetCached();                                                  // pcs may mean something else now

 private:
  static constexpr uint32_t kIndexBits = 24;  // up to 16 million stacks
  static constexpr uint32_t kCacheBits = 16;
  static constexpr uint32_t kFrameCacheBits = 14;
  static constexpr uint32_t kInlineFrames = 3;

  struct CachedFrames {  // raw frame -> frames of a person
    uint64_t key_a, key_b;
    uint32_t count;  // 0: V8 has nothing to show for it; kEmptySlot: unused
    uint32_t frames[kInlineFrames];
  };
  static constexpr uint32_t kEmptySlot = 0xffffffffu;

  uint64_t& CacheSlot(uint64_t hash) const { return cache_[hash & ((1u << kCacheBits) - 1)]; }
  // What one raw frame is to a person, innermost first.
  struct ShownFrames {
    uint32_t count;
    bool cacheable = true;  // the same the next time
    uint32_t frames[v8::kMaxResolvedFrames];
  };

  uint32_t Intern(WalkedStack* walked, uint32_t thread);
  // False when the recording is full.
  bool ResolveFrame(const WalkedFrame& walked, ShownFrames* shown);
  bool ResolveV8(const WalkedFrame& walked, ShownFrames* shown);
  bool Show(uint32_t frame, ShownFrames* shown);
  uint32_t InternResolved(const v8::ResolvedFrame& resolved);
  uint32_t InternFrame(const recording::Frame& frame);
  uint32_t InternFunction(const recording::JsFunction& function);
  uint32_t InternNode(uint32_t parent, uint32_t frame);
  uint32_t* FirstInner(uint32_t node);  // nullptr: no memory
  uint32_t InternStack(uint32_t node, uint32_t thread, uint32_t depth, uint32_t flags);
  recording::StringRef InternStringLocked(const char* text, uint64_t bytes);
  bool GrowStrings();

  SpinLock lock_;
  AppendTable<char> bytes_;
  AppendTable<recording::JsFunction> functions_;
  AppendTable<recording::Frame> frames_;
  AppendTable<recording::StackNode> nodes_;
  AppendTable<recording::Stack> stacks_;
  struct InternedString {
    recording::StringRef ref;
    uint64_t hash;
  };
  InternIndex string_index_, function_index_, frame_index_, node_index_, stack_index_;
  InternedString* strings_ = nullptr;  // by number in string_index_; doubles
  uint32_t string_count_ = 0, string_capacity_ = 0;
  uint32_t* first_inner_ = nullptr;  // by node; 0: it has none; doubles
  uint32_t first_inner_capacity_ = 0;
  uint64_t* cache_ = nullptr;  // tag << kIndexBits | stack
  CachedFrames* frame_cache_ = nullptr;
  v8::ResolveBuffer* resolve_ = nullptr;
  uint32_t marker_stacks_[static_cast<uint32_t>(recording::MarkerId::kCount)] = {};
};

}  // namespace nodeleak::preload
