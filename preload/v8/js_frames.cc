#include "preload/v8/js_frames.h"

#include <dlfcn.h>

#include "preload/base/guard.h"
#include "preload/recorder/recorder.h"
#include "preload/v8/bytecode_sizes.h"
#include "preload/v8/closure_names.h"
#include "preload/v8/code_objects.h"
#include "preload/v8/code_ranges.h"
#include "preload/v8/frame_keys.h"
#include "preload/v8/heap_reader.h"
#include "preload/v8/layout.h"
#include "preload/v8/module.h"
#include "recording/layout.h"

namespace nodeleak::preload::v8 {

namespace {

bool g_started;
uint32_t g_heap_memory_epoch;
void* (*g_try_get_current)();

// Before the isolate is registered its address must do: script ids are per isolate.
uint32_t CurrentGeneration() {
  uint32_t generation = t_locals.isolate_generation;
  if (__builtin_expect(generation != 0, 1)) return generation;
  constexpr uint32_t kUnregistered = 1u << 27;
  if (g_try_get_current == nullptr) return kUnregistered;
  // There is a JavaScript frame below us, so V8 is initialized and this thread is inside an isolate.
  return kUnregistered | (static_cast<uint32_t>(reinterpret_cast<uint64_t>(g_try_get_current()) >> 12) & 0x07ffffff);
}

StepResult Stop(recording::MarkerId marker, WalkedFrame* frame) {
  frame->key_a = static_cast<uint64_t>(marker);
  frame->key_b = 0;
  frame->type = WalkedType::kMarker;
  return StepResult::kStop;
}

// A function by its place in its script: does not move with collections.
struct FunctionKey {
  uint32_t script_id;  // mixed with ClosureBits
  uint32_t literal_id;
  uint64_t function_data;  // kNoLiteral: tells builtins apart, but for those with the same code (typed arrays):
  uint32_t name;           // kNoLiteral: the hash of the name does
};
constexpr uint32_t kNoLiteral = 0xffffffff;  // builtins and functions of the embedder

// String: map, raw_hash_field (32 bits), length (V8 src/objects/name.h and string.h, 10 to 14). What else may stand in
// its place has something as constant there. 0: not readable.
uint32_t NameHash(uint64_t shared) {
  uint64_t name, word;
  if (!LoadWord(shared - 1 + Get(Field::kSharedName), &name) || !IsHeapObject(name)) return 0;
  return LoadWord(name - 1 + 8, &word) ? static_cast<uint32_t>(word) : 0;
}

// JSFunction -> SharedFunctionInfo -> Script. In a collection the objects may have moved already: the old copies keep
// their fields until all roots, ours among them, are updated. So no type checks here.
bool LoadFunctionKey(uint64_t function, FunctionKey* key) {
  uint64_t shared, script, word;
  if (!IsHeapObject(function) || !LoadWord(function - 1 + Get(Field::kFunctionShared), &shared)) return false;
  uint64_t literal_at = shared - 1 + Get(Field::kSharedLiteralId);
  if (!IsHeapObject(shared) || !LoadWord(literal_at & ~uint64_t{7}, &word)) return false;
  key->literal_id = static_cast<uint32_t>((literal_at & 4) != 0 ? word >> 32 : word);
  if (__builtin_expect(key->literal_id == kNoLiteral, 0)) {
    key->script_id = 0;
    key->name = NameHash(shared);
    return LoadWord(shared - 1 + Get(Field::kSharedUntrustedData), &key->function_data);
  }
  if (!LoadWord(shared - 1 + Get(Field::kSharedScript), &script) || !IsHeapObject(script)) return false;
  if (!LoadWord(script - 1 + Get(Field::kScriptId), &word)) return false;
  key->script_id = static_cast<uint32_t>(word >> 32) ^ ClosureBits(function);
  return true;
}

// Function, code and script are where they are until the next collection. A closure's map changes with its properties,
// its name among them.
void NeedsQuietHeap(uint64_t function, SlotLog* log) {
  uint64_t map;
  if (!t_locals.watches_gc || !IsHeapObject(function) || !LoadWord(function - 1, &map)) {
    log->NotRepeatable();
  } else {
    log->Keep(function - 1, map, ~uint64_t{0});
  }
}

void SetKey(WalkedFrame* frame, FrameKind kind, uint32_t low, uint64_t key_b) {
  frame->key_a = PackFirst(kind, CurrentGeneration(), low);
  frame->key_b = key_b;
  frame->type = WalkedType::kV8;
  frame->v8_kind = static_cast<uint8_t>(kind);
}

StepResult UnreadableFunction(SlotLog* log, WalkedFrame* frame) {
  log->NotRepeatable();
  frame->key_a = static_cast<uint64_t>(recording::MarkerId::kJsFunctionUnknown);
  frame->key_b = 0;
  frame->type = WalkedType::kMarker;
  return StepResult::kFrame;
}

StepResult BuiltinKey(const FunctionKey& key, FrameKind kind, WalkedFrame* frame) {
  // Not a builtin id: a function template of the embedder, whose C++ frames say more.
  if (!IsSmi(key.function_data)) return StepResult::kSkip;
  SetKey(frame, kind, key.name, static_cast<uint32_t>(SmiValue(key.function_data)));
  return StepResult::kFrame;
}

// pc in the builtins: the interpreter, or a builtin that has a frame of its own.
StepResult ReadBuiltinsFrame(SlotLog* log, WalkedFrame* frame) {
  FunctionKey key;
  const uint64_t function = log->Read(frame->fp + Get(Field::kFrameFunction));
  if (!LoadFunctionKey(function, &key)) return UnreadableFunction(log, frame);
  NeedsQuietHeap(function, log);
  if (key.literal_id == kNoLiteral) return BuiltinKey(key, FrameKind::kBuiltin, frame);
  uint64_t offset = log->Read(frame->fp + Get(Field::kFrameBytecodeOffset));
  if (IsSmi(offset) && IsHeapObject(log->Read(frame->fp + Get(Field::kFrameBytecodeArray)))) {
    SetKey(frame, FrameKind::kInterpreted, key.script_id,
           PackPair(key.literal_id, static_cast<uint32_t>(SmiValue(offset))));
  } else {
    SetKey(frame, FrameKind::kFunctionOnly, key.script_id, PackPair(key.literal_id, 0));
  }
  return StepResult::kFrame;
}

// Slots alone do not tell the tier: optimized code entered by OSR keeps stale interpreter slots. The pc does.
StepResult ReadJitFrame(SlotLog* log, WalkedFrame* frame) {
  uint64_t function = log->Read(frame->fp + Get(Field::kFrameFunction));
  NeedsQuietHeap(function, log);
  CodeAtPc code = {};
  bool known = g_features.optimized && FindCodeAtPc(frame->pc, function, &code);
  uint32_t offset = static_cast<uint32_t>(frame->pc - code.start);
  if (known && (code.tier == CodeTier::kMaglev || code.tier == CodeTier::kTurbofan)) {
    SetKey(frame, FrameKind::kOptimized, static_cast<uint32_t>(code.identity) ^ ClosureBits(function),
           PackPair(static_cast<uint32_t>(code.identity >> 32), offset));
    return StepResult::kFrame;
  }
  if (!known) log->NotRepeatable();  // the next time it may be
  FunctionKey key;
  if (!LoadFunctionKey(function, &key)) {
    // Nor is the code a function's: a regular expression's. Their frames have no type before V8 11.
    if (known && code.tier == CodeTier::kOther) return StepResult::kSkip;
    return UnreadableFunction(log, frame);
  }
  if (key.literal_id == kNoLiteral) return StepResult::kSkip;
  bool baseline = known && code.tier == CodeTier::kBaseline;
  SetKey(frame, baseline ? FrameKind::kBaseline : FrameKind::kFunctionOnly, key.script_id,
         PackPair(key.literal_id, baseline ? offset : 0));
  return StepResult::kFrame;
}

// Frames without a context: their type is in its place. Nearly all are V8's own business.
StepResult ReadTypedFrame(uint64_t marker, const StackBounds& bounds, SlotLog* log, WalkedFrame* frame) {
  int32_t type = static_cast<int32_t>(marker >> 1);
  if (type == Get(Field::kTypeWasmFrame) && g_features.wasm) {
    SetKey(frame, FrameKind::kWasm, 0, frame->pc);
    return StepResult::kFrame;
  }
  FunctionKey key;
  if (type == Get(Field::kTypeJsContinuationFrame) || type == Get(Field::kTypeJsContinuationCatchFrame)) {
    // A deoptimization turned an inlined builtin (Array.map) into a frame; its function is where JS frames have it.
    uint64_t function = log->Read(frame->fp + Get(Field::kFrameFunction));
    NeedsQuietHeap(function, log);
    if (!LoadFunctionKey(function, &key) || key.literal_id != kNoLiteral) return StepResult::kSkip;
    return BuiltinKey(key, FrameKind::kBuiltin, frame);
  }
  if (type != Get(Field::kTypeBuiltinExitFrame)) return StepResult::kSkip;
  constexpr uint64_t kTargetFunction = 24;  // above the return address: new.target is at 16
  if (!bounds.Contains(frame->fp + kTargetFunction, 8)) return StepResult::kSkip;
  uint64_t target = log->Read(frame->fp + kTargetFunction);
  NeedsQuietHeap(target, log);
  if (!LoadFunctionKey(target, &key) || key.literal_id != kNoLiteral) return StepResult::kSkip;
  return BuiltinKey(key, FrameKind::kBuiltinExit, frame);
}

}  // namespace

bool Start() {
  if (!FindV8Module()) {
    constexpr recording::CapabilityId kAll[] = {
        recording::CapabilityId::kJsFrames, recording::CapabilityId::kJsNames, recording::CapabilityId::kJsLines,
        recording::CapabilityId::kOptimizedFrames, recording::CapabilityId::kWasmFrames};
    for (auto id : kAll) SetCapability(id, recording::CapabilityState::kAbsent, "no V8 in this process");
    return false;
  }
  g_try_get_current = reinterpret_cast<void* (*)()>(dlsym(RTLD_DEFAULT, "_ZN2v87Isolate13TryGetCurrentEv"));
  LoadLayout();
  FindBytecodeSizes();
  ForgetModuleFile();
  // Started again, for another recording: memory came and went unseen.
  constexpr uint64_t kAllMemory = uint64_t{1} << 47;
  MemoryChanged(0, kAllMemory, true, true);
  g_started = true;
  return true;
}

CodeKind FindCode(uint64_t pc, bool in_elf_text, bool only_v8) {
  return g_started ? FindCodeKind(pc, in_elf_text, only_v8) : CodeKind::kNotV8;
}

StepResult StepV8Frame(CodeKind code, WalkRegisters* registers, const StackBounds& bounds, SlotLog* log,
                       WalkedFrame* frame) {
  const uint64_t fp = registers->fp;
  // Below rbp: context, function, argument count, bytecode array, offset. All V8 frames have at least the first word.
  constexpr uint64_t kBelow = 40;
  // A frame lies outside the one it called: the deoptimizer's entry leaves an rbp that does not.
  if (fp < registers->sp || (fp & 7) != 0 || fp < kBelow || !bounds.Contains(fp - kBelow, kBelow + 16) ||
      !g_features.frames)
    return Stop(recording::MarkerId::kJsUnreadable, frame);
  frame->pc = registers->pc;
  frame->fp = fp;
  const uint64_t marker_at = fp + Get(Field::kFrameContext);
  const uint64_t marker = *reinterpret_cast<const uint64_t*>(marker_at);
  StepResult result;
  if ((marker & 1) == 0) {
    log->Keep(marker_at, marker, ~uint64_t{0});
    result = ReadTypedFrame(marker, bounds, log, frame);
  } else {
    log->Keep(marker_at, marker, 1);  // a context: another one with each block of a function
    result = code == CodeKind::kBuiltins ? ReadBuiltinsFrame(log, frame) : ReadJitFrame(log, frame);
  }
  if (result == StepResult::kSkip) {
    frame->type = WalkedType::kSkipped;
    frame->key_a = frame->key_b = 0;
  }
  // JSEntry frames are left the same way: they save rbp at [rbp] like any other, the C++ caller's pc above.
  registers->pc = log->Read(fp + 8);
  registers->sp = fp + 16;
  registers->fp = log->Read(fp);
  return result;
}

bool IsSameFunction(uint64_t a, uint64_t b) {
  uint64_t map_a, map_b, shared_a, shared_b;
  if (!t_locals.watches_gc || !IsHeapObject(a) || !IsHeapObject(b)) return false;
  if (!LoadWord(a - 1, &map_a) || !LoadWord(b - 1, &map_b) || map_a != map_b) return false;
  const uint64_t shared = static_cast<uint64_t>(Get(Field::kFunctionShared)) - 1;
  if (!LoadWord(a + shared, &shared_a) || !LoadWord(b + shared, &shared_b) || shared_a != shared_b) return false;
  return ClosureBits(a) == ClosureBits(b);
}

uint32_t HeapMemoryEpoch() { return __atomic_load_n(&g_heap_memory_epoch, __ATOMIC_ACQUIRE); }

void MemoryWillGo(uint64_t start, uint64_t bytes) {
  if (g_started && ForgetReadable(start, bytes)) __atomic_add_fetch(&g_heap_memory_epoch, 1u, __ATOMIC_RELEASE);
}

bool MemoryChanged(uint64_t start, uint64_t bytes, bool unmapped_or_unreadable, bool executable) {
  if (!g_started || bytes == 0) return false;
  if (unmapped_or_unreadable) MemoryWillGo(start, bytes);
  return (unmapped_or_unreadable || executable) && CodeMemoryChanged(start, bytes, unmapped_or_unreadable);
}

void SetCurrentIsolateGeneration(uint32_t generation) {
  t_locals.isolate_generation = generation;
  ++t_locals.gc_epoch;
}

}  // namespace nodeleak::preload::v8
