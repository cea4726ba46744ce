// ResolveV8Frame: a raw frame that is still on the stack -> what a person calls it.
#include <string.h>

#include "preload/base/guard.h"
#include "preload/v8/bytecode_sizes.h"
#include "preload/v8/closure_names.h"
#include "preload/v8/code_objects.h"
#include "preload/v8/deopt_frames.h"
#include "preload/v8/frame_keys.h"
#include "preload/v8/functions.h"
#include "preload/v8/heap_reader.h"
#include "preload/v8/js_frames.h"
#include "preload/v8/script_lines.h"
#include "preload/v8/script_scopes.h"
#include "preload/v8/source_positions.h"
#include "preload/v8/strings.h"
#include "preload/v8/wasm_frames.h"
#include "preload/v8/wasm_module.h"
#include "recording/layout.h"

namespace nodeleak::preload::v8 {

namespace {

constexpr uint32_t kMostFrames = sizeof ResolveBuffer::frames / sizeof(ResolvedFrame);
constexpr size_t kMostNameBytes = 1024;

// Text at the end of the buffer.
class Text {
 public:
  explicit Text(ResolveBuffer* out) : out_(out), start_(out->text_bytes) {}
  size_t room() const { return sizeof out_->text - out_->text_bytes; }
  void Add(const char* text, size_t bytes) {
    if (bytes > room()) bytes = room();
    memcpy(out_->text + out_->text_bytes, text, bytes);
    out_->text_bytes += static_cast<uint32_t>(bytes);
  }
  void Add(const char* text) { Add(text, strlen(text)); }
  void AddString(uint64_t string) {
    size_t most = room() < kMostNameBytes ? room() : kMostNameBytes;
    out_->text_bytes += static_cast<uint32_t>(ReadString(string, out_->text + out_->text_bytes, most));
  }
  void AddMemory(uint64_t address, uint64_t bytes) {
    uint64_t most = room() < kMostNameBytes ? room() : kMostNameBytes;
    if (bytes > most) bytes = most;
    if (ReadMemory(address, out_->text + out_->text_bytes, bytes)) out_->text_bytes += static_cast<uint32_t>(bytes);
  }
  void AddNumber(uint64_t value) {
    char digits[20];
    size_t count = 0;
    do {
      digits[sizeof digits - ++count] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    Add(digits + sizeof digits - count, count);
  }
  void TurnUrlIntoPath() {
    out_->text_bytes = start_ + static_cast<uint32_t>(UrlToPath(out_->text + start_, out_->text_bytes - start_));
  }
  void Clear() { out_->text_bytes = start_; }
  bool empty() const { return out_->text_bytes == start_; }
  const char* data() const { return out_->text + start_; }
  ResolvedString Done() const { return {start_, out_->text_bytes - start_}; }

 private:
  ResolveBuffer* out_;
  uint32_t start_;
};

struct Place {
  int32_t position;  // in the script; -1 unknown
  uint8_t tier;
  bool inlined;
};

struct Resolver {
  ResolveBuffer* out;
  uint32_t generation;

  ResolvedFrame* NewFrame(recording::FrameType type) {
    if (out->frame_count == kMostFrames) return nullptr;
    ResolvedFrame* frame = &out->frames[out->frame_count++];
    *frame = {};
    frame->type = static_cast<uint8_t>(type);
    return frame;
  }
  void AddJsFrame(const FunctionInfo& info, uint64_t own_name, const Place& place);
  void AddBuiltin(const FunctionInfo& info, uint64_t own_name);
  ResolvedString ScriptFile(uint64_t script);
  ResolvedString CreatedWhere(uint64_t script);
};

ResolvedString Resolver::ScriptFile(uint64_t script) {
  Text text(out);
  text.AddString(ReadField(script, Field::kScriptName));
  // Code from eval has no name but may give itself one: //# sourceURL.
  if (text.empty()) text.AddString(ReadField(script, Field::kScriptSourceUrl));
  text.TurnUrlIntoPath();
  return text.Done();
}

bool NameOf(const FunctionInfo& info, uint64_t own_name, Text* text, uint32_t* flags) {
  if (const char* fixed = FixedName(info)) text->Add(fixed);
  if (text->empty() && own_name != 0) {
    text->AddString(own_name);
    if (text->empty()) return false;  // "" hides the declared name, as in V8
    if (!IsWorthKeeping(text->data(), text->Done().length)) text->Clear();
  }
  if (text->empty() && info.name != 0) text->AddString(info.name);
  if (!text->empty() || info.inferred_name == 0) return !text->empty();
  text->AddString(info.inferred_name);
  if (!text->empty()) *flags |= recording::kJsNameInferred;
  return !text->empty();
}

// The script that called eval or new Function. A negative position is a bytecode offset that nobody has translated.
ResolvedString Resolver::CreatedWhere(uint64_t script) {
  Text text(out);
  uint64_t from = ReadField(script, Field::kScriptEvalFromShared);
  FunctionInfo info;
  if (!DescribeFunction(from, &info) || info.script == 0) return text.Done();
  uint64_t raw = ReadField(script, Field::kScriptEvalFromPosition);
  int32_t position = IsSmi(raw) ? SmiValue(raw) : -1;
  SourcePosition found;
  if (position < 0) {
    bool known = info.bytecode != 0 &&
                 FindPositionInTable(ReadField(info.bytecode, Field::kBytecodePositions), -position, &found);
    position = known ? found.offset() : -1;
  }
  LineColumn at = FindLineColumn(generation, info.script, position);
  text.AddString(ReadField(info.script, Field::kScriptName));
  text.TurnUrlIntoPath();
  if (text.empty()) text.Add("eval");
  if (at.line != 0) {
    text.Add(":");
    text.AddNumber(at.line);
    text.Add(":");
    text.AddNumber(at.column);
  }
  uint32_t ignored = 0;
  Text name(out);
  text.Add(" (");
  Text inner(out);
  if (!NameOf(info, 0, &inner, &ignored)) text.Add("anonymous");
  text.Add(")");
  return text.Done();
}

void Resolver::AddJsFrame(const FunctionInfo& info, uint64_t own_name, const Place& place) {
  ResolvedFrame* frame = NewFrame(recording::FrameType::kJs);
  if (frame == nullptr) return;
  frame->tier = place.tier;
  frame->inlined = place.inlined ? 1 : 0;
  if (info.literal_id == 0) frame->function_flags |= recording::kJsTopLevel;
  Text name(out);
  bool named = NameOf(info, own_name, &name, &frame->function_flags);
  bool eval = IsOfType(ReadField(info.script, Field::kScriptEvalFromShared), Field::kTypeShared);
  if (eval) {
    frame->function_flags |= recording::kJsEval;
    if (!named) name.Add("eval");  // as V8's CallSite says
  }
  frame->name = name.Done();
  frame->file = ScriptFile(info.script);
  if (eval) frame->where = CreatedWhere(info.script);
  if (!g_features.lines) return;
  LineColumn start = FindLineColumn(generation, info.script, info.start_position);
  LineColumn at = FindLineColumn(generation, info.script, place.position);
  frame->line = at.line;
  frame->column = at.column;
  frame->function_line = start.line;
  frame->function_column = start.column;
}

// V8 shows only builtins that carry the `native` flag, also those without a name (the closures of Promise.finally).
void Resolver::AddBuiltin(const FunctionInfo& info, uint64_t own_name) {
  if (!IsNative(info)) return;
  ResolvedFrame* frame = NewFrame(recording::FrameType::kJsNative);
  if (frame == nullptr) return;
  frame->function_flags = recording::kJsBuiltin;
  Text name(out);
  NameOf(info, own_name, &name, &frame->function_flags);
  frame->name = name.Done();
}

enum Tier : uint8_t { kUnknown = 0, kInterpreter = 1, kBaselineTier = 2, kMaglevTier = 3, kTurbofanTier = 4 };

uint64_t SharedOf(uint64_t function) { return ReadField(FollowForwarding(function), Field::kFunctionShared); }
// The walk has made sure that these words are there.
uint64_t FrameSlot(const WalkedFrame& frame, Field field) {
  return *reinterpret_cast<const uint64_t*>(frame.fp + static_cast<uint64_t>(Get(field)));
}

// The variables of the program's own functions, not of node's.
void NoteScopeOf(const WalkedFrame& frame, const ResolveBuffer& out) {
  constexpr char kNodesOwn[] = "node:";
  constexpr size_t kBytes = sizeof kNodesOwn - 1;
  if (out.frame_count == 0) return;
  const ResolvedString& file = out.frames[out.frame_count - 1].file;
  if (file.length >= kBytes && memcmp(out.text + file.offset, kNodesOwn, kBytes) == 0) return;
  NoteScope(FrameSlot(frame, Field::kFrameContext));
}

int32_t InterpretedPosition(const WalkedFrame& frame) {
  uint64_t bytecode = FrameSlot(frame, Field::kFrameBytecodeArray);
  uint64_t offset = FrameSlot(frame, Field::kFrameBytecodeOffset);
  if (!IsSmi(offset) || !IsOfType(bytecode, Field::kTypeBytecodeArray)) return -1;
  // The register counts from the tagged pointer.
  int32_t code_offset = SmiValue(offset) - (Get(Field::kBytecodeFirst) - 1);
  SourcePosition position;
  uint64_t table = ReadField(FollowForwarding(bytecode), Field::kBytecodePositions);
  return FindPositionInTable(table, code_offset, &position) ? position.offset() : -1;
}

int32_t BaselinePosition(const WalkedFrame& frame) {
  uint64_t bytecode = FrameSlot(frame, Field::kFrameBytecodeArray);
  CodeObject code;
  uint64_t address, bytes;
  if (!IsOfType(bytecode, Field::kTypeBytecodeArray) || !FindCodeObject(frame.pc, &code)) return -1;
  bytecode = FollowForwarding(bytecode);
  if (!FindBytes(ReadField(code.code, Field::kCodePositions), &address, &bytes)) return -1;
  int32_t index = FindBaselineBytecodeIndex(ByteStream(address, bytes), frame.pc - code.start);
  // The prologue calls out for stack checks and to compile better code: there the function has just been entered.
  constexpr int32_t kFunctionEntry = -1;
  int32_t offset = index >= 0 ? FindBytecodeOffset(bytecode, index) : kFunctionEntry;
  if (index == kUnknownBytecode || (index >= 0 && offset < 0)) return -1;
  SourcePosition position;
  if (!FindPositionInTable(ReadField(bytecode, Field::kBytecodePositions), offset, &position)) return -1;
  return position.offset();
}

bool ResolveUnoptimized(const WalkedFrame& frame, Resolver* resolver, bool* cacheable) {
  uint64_t function = FrameSlot(frame, Field::kFrameFunction);
  FunctionInfo info;
  if (!DescribeFunction(SharedOf(function), &info) || info.script == 0) {
    *cacheable = false;
    return false;
  }
  Place place = {-1, kUnknown, false};
  if (g_features.lines && frame.v8_kind == static_cast<uint8_t>(FrameKind::kInterpreted)) {
    place = {InterpretedPosition(frame), kInterpreter, false};
  } else if (g_features.lines && frame.v8_kind == static_cast<uint8_t>(FrameKind::kBaseline)) {
    place = {BaselinePosition(frame), kBaselineTier, false};
    // Objects that move now may be readable later; otherwise there is no position (a call of the prologue, say).
    if (place.position < 0) *cacheable = t_locals.watches_gc || !HasBytecodeSizes();
  } else {
    *cacheable = false;
  }
  resolver->AddJsFrame(info, FindOwnName(function), place);
  NoteScopeOf(frame, *resolver->out);
  return true;
}

struct OptimizedFrame {
  CodeObject code;
  InlinedFunctions inlined;
  FunctionInfo outer;
  uint64_t fp;
  uint64_t function;  // of the outermost
  uint8_t tier;
  uint32_t pc_offset;  // of the call
};

int32_t BytecodePosition(const FunctionInfo& info, int32_t bytecode_offset) {
  SourcePosition position;
  if (info.bytecode == 0 || bytecode_offset < 0) return -1;
  uint64_t table = ReadField(info.bytecode, Field::kBytecodePositions);
  return FindPositionInTable(table, bytecode_offset, &position) ? position.offset() : -1;
}

// The JSFunction of an inlined call, for the sake of its own name; 0: another one with each call. Then its name may be
// another one, too, and the key of the frame does not tell: its declared name is shown (decision 0018).
uint64_t FindInlinedClosure(const OptimizedFrame& frame, const UnoptimizedFrame& inlined, uint64_t shared) {
  if (inlined.closure < 0) return 0;
  const uint64_t function = ReadLiteral(frame.inlined, inlined.closure);
  return IsFunction(function) && FollowForwarding(SharedOf(function)) == shared ? function : 0;
}

// Maglev names the caller instead of the builtin that it inlined; the place to continue at (one past the number of the
// builtin that continues) tells which. Read from the official binaries.
const char* NameOfContinuation(int32_t bytecode_offset) {
  struct Known {
    int32_t major, minor, bytecode_offset;
    const char* name;
  };
  constexpr Known kKnown[] = {{13, 6, 1092, "forEach"}, {14, 6, 862, "forEach"}};
  for (const Known& known : kKnown) {
    if (known.major == g_layout.major && known.minor == g_layout.minor && known.bytecode_offset == bytecode_offset)
      return known.name;
  }
  return nullptr;
}

void AddContinuation(int32_t bytecode_offset, Resolver* resolver) {
  const char* builtin = NameOfContinuation(bytecode_offset);
  ResolvedFrame* resolved = builtin != nullptr ? resolver->NewFrame(recording::FrameType::kJsNative) : nullptr;
  if (resolved == nullptr) return;
  Text name(resolver->out);
  name.Add(builtin);
  resolved->name = name.Done();
  resolved->function_flags = recording::kJsBuiltin;
  resolved->inlined = 1;
}

// By the frames that a deoptimization here would make. All or nothing: nothing is added when a frame has no position.
bool ResolveByDeoptData(const OptimizedFrame& frame, int32_t deopt_index, Resolver* resolver) {
  constexpr int kMostInlined = 32;
  UnoptimizedFrame frames[kMostInlined];
  int count = ReadDeoptFrames(frame.code, deopt_index, frames, kMostInlined);
  const uint32_t frames_before = resolver->out->frame_count, text_before = resolver->out->text_bytes;
  for (int i = count - 1; i >= 0; --i) {
    uint64_t shared;
    FunctionInfo info = {};
    bool known = ReadSharedLiteral(frame.inlined, frames[i].literal, &shared) && DescribeFunction(shared, &info);
    // The outermost must be the function that the frame itself names.
    if (known && i == 0) known = info.shared == frame.outer.shared;
    int32_t position = known && info.script != 0 ? BytecodePosition(info, frames[i].bytecode_offset) : -1;
    if (known && frames[i].continuation && info.script != 0) {
      AddContinuation(frames[i].bytecode_offset, resolver);
    } else if (known && info.script == 0) {
      resolver->AddBuiltin(info, 0);
    } else if (known && position >= 0) {
      uint64_t function = i == 0 ? frame.function : FindInlinedClosure(frame, frames[i], info.shared);
      resolver->AddJsFrame(info, function != 0 ? FindOwnName(function) : 0, {position, frame.tier, i != 0});
    } else {
      resolver->out->frame_count = frames_before;
      resolver->out->text_bytes = text_before;
      return false;
    }
  }
  return count > 0;
}

// By the code's source position table. Innermost first: each inlined call says where it was called, down to the
// function whose code this is.
void ResolveByPositions(const OptimizedFrame& frame, Resolver* resolver) {
  constexpr int kMostInlined = 32;
  SourcePosition position;
  bool found = FindPositionInTable(ReadField(frame.code.code, Field::kCodePositions),
                                   static_cast<int64_t>(frame.pc_offset) - 1, &position);
  for (int depth = 0; found && depth < kMostInlined && position.inlining() >= 0; ++depth) {
    uint64_t call_position, shared;
    FunctionInfo info;
    if (!ReadInlining(frame.inlined, position.inlining(), &call_position, &shared) || !DescribeFunction(shared, &info))
      break;
    if (info.script != 0) {
      resolver->AddJsFrame(info, 0, {position.external() ? -1 : position.offset(), frame.tier, true});
    } else {
      resolver->AddBuiltin(info, 0);
    }
    position.raw = call_position;
  }
  bool usable = found && position.inlining() < 0 && !position.external();
  resolver->AddJsFrame(frame.outer, FindOwnName(frame.function), {usable ? position.offset() : -1, frame.tier, false});
}

bool ResolveOptimized(const WalkedFrame& walked, Resolver* resolver, bool* cacheable) {
  OptimizedFrame frame = {};
  frame.fp = walked.fp;
  frame.function = FrameSlot(walked, Field::kFrameFunction);
  if (!DescribeFunction(SharedOf(frame.function), &frame.outer) || frame.outer.script == 0) {
    *cacheable = false;
    return false;
  }
  if (!FindCodeObject(walked.pc, &frame.code)) {
    *cacheable = false;
    resolver->AddJsFrame(frame.outer, FindOwnName(frame.function), {-1, kUnknown, false});
    return true;
  }
  frame.tier = frame.code.tier == CodeTier::kMaglev ? kMaglevTier : kTurbofanTier;
  frame.inlined = ReadInlinedFunctions(frame.code);
  frame.pc_offset = static_cast<uint32_t>(walked.pc - frame.code.start);
  SafepointEntry safepoint;
  if (FindSafepoint(frame.code, frame.pc_offset, &safepoint)) {
    frame.pc_offset = safepoint.pc_offset;
    if (ResolveByDeoptData(frame, safepoint.deopt_index, resolver)) {
      NoteScopeOf(walked, *resolver->out);
      return true;
    }
  }
  ResolveByPositions(frame, resolver);
  NoteScopeOf(walked, *resolver->out);
  return true;
}

bool ResolveBuiltin(const WalkedFrame& frame, Resolver* resolver, bool* cacheable) {
  constexpr uint64_t kTargetFunction = 24;
  bool exit = frame.v8_kind == static_cast<uint8_t>(FrameKind::kBuiltinExit);
  uint64_t function = exit ? ReadWord(frame.fp + kTargetFunction) : FrameSlot(frame, Field::kFrameFunction);
  FunctionInfo info;
  if (!IsFunction(function) || !DescribeFunction(SharedOf(function), &info)) {
    *cacheable = false;
    return true;
  }
  resolver->AddBuiltin(info, FindOwnName(function));
  return true;
}

void AddWasmFrame(const WasmCall& call, const WasmBytes& module, ResolvedString file, Resolver* resolver) {
  ResolvedFrame* resolved = resolver->NewFrame(recording::FrameType::kWasm);
  if (resolved == nullptr) return;
  Text name(resolver->out);
  WasmName own;
  if (FindWasmName(module, call.function_index, &own)) name.AddMemory(own.address, own.bytes);
  const bool named = !name.empty();
  if (!named) name.Add("wasm-function");  // as V8 says
  if (!named && call.function_index >= 0) {
    name.Add("[");
    name.AddNumber(static_cast<uint64_t>(call.function_index));
    name.Add("]");
  }
  resolved->name = name.Done();
  resolved->file = file;
  resolved->inlined = call.inlined;
  uint64_t body;
  if (call.offset >= 0 && FindWasmBody(module, call.function_index, &body))
    resolved->value = body + static_cast<uint64_t>(call.offset);
}

bool ResolveWasm(const WalkedFrame& frame, Resolver* resolver, bool* cacheable) {
  constexpr uint32_t kMostInlined = 16;
  KernelReads reads;  // modules are in malloc's memory
  WasmPlace place;
  *cacheable = FindWasmPlace(frame.pc, frame.fp, &place);
  WasmBytes module = {};
  if (place.native_module != 0 && !FindWasmBytes(place.native_module, &module)) module = {};
  const ResolvedString file = place.script != 0 ? resolver->ScriptFile(place.script) : ResolvedString{};
  WasmCall calls[kMostInlined];
  const uint32_t count = FindWasmCalls(place, calls, kMostInlined);
  for (uint32_t i = 0; i < count; ++i) AddWasmFrame(calls[i], module, file, resolver);
  return true;
}

}  // namespace

bool ResolveV8Frame(const WalkedFrame& frame, ResolveBuffer* out, bool* cacheable) {
  out->frame_count = 0;
  out->text_bytes = 0;
  *cacheable = true;
  if (!g_features.names) return false;
  PageCopies copies;
  Resolver resolver = {out, GenerationOf(frame.key_a)};
  switch (static_cast<FrameKind>(frame.v8_kind)) {
    case FrameKind::kInterpreted:
    case FrameKind::kBaseline:
    case FrameKind::kFunctionOnly:
      return ResolveUnoptimized(frame, &resolver, cacheable);
    case FrameKind::kOptimized:
      return ResolveOptimized(frame, &resolver, cacheable);
    case FrameKind::kBuiltin:
    case FrameKind::kBuiltinExit:
      return ResolveBuiltin(frame, &resolver, cacheable);
    case FrameKind::kWasm:
      return ResolveWasm(frame, &resolver, cacheable);
  }
  return false;
}

}  // namespace nodeleak::preload::v8
