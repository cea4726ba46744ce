// Runs inside node, on any thread, possibly inside malloc or a garbage collection. Never allocates, waits or throws.
//
// The V8 part of a stack walk. Two speeds: StepV8Frame is paid by every recorded allocation (about 6 ns a frame: a
// handful of dependent loads, no system call), ResolveV8Frame only when a stack is seen for the first time (tens of
// microseconds).
#pragma once

#include <stdint.h>

#include "preload/unwind/walked_frame.h"

namespace nodeleak::preload::v8 {

// Finds V8 in this process and decides per feature what is on (layout.h). False: no V8 here, nothing below may be
// called. Called once, before the first allocation is recorded; may read files and allocate through libc with the hooks
// off.
bool Start();

// Whether pc lies in V8's embedded builtins (in .text or one of its remapped copies) or in JIT memory. `in_elf_text`
// says that the caller's module table knows pc as ordinary ELF code (saves the search; builtins in .text still count).
// The answer holds until MemoryChanged says otherwise.
enum class CodeKind : uint8_t { kNotV8 = 0, kBuiltins, kJit };
CodeKind FindCode(uint64_t pc, bool in_elf_text, bool only_v8 = false);
// A recording begins: what became of code before, no hook has seen.
void CodeMemoryUnseen();

// Steps out of one V8 frame. On entry registers->pc is in V8 code of that kind and registers->fp is its rbp. Reads the
// stack through `log`, which is told when something else decided about the frame than the stack and what holds until
// t_locals.gc_epoch changes.
//   kFrame    *frame is filled in: a frame to keep
//   kSkip     a V8-internal frame (stub, construct, internal): nothing to keep, its type is kSkipped
//   kStop     the chain is broken; *frame is a marker frame that says why
// After kFrame and kSkip *registers is the caller. Through JSEntry frames it is the native caller (pc, sp, fp all
// valid).
enum class StepResult : uint8_t { kFrame, kSkip, kStop };
StepResult StepV8Frame(CodeKind code, WalkRegisters* registers, const StackBounds& bounds, SlotLog* log,
                       WalkedFrame* frame);

// Whether frames of these two functions, tagged pointers of the calling thread's isolate, have the same key at the same
// pc. Both as they are or were since the last collection.
bool IsSameFunction(uint64_t a, uint64_t b);

// What a V8 frame means to a person, innermost first. Strings are written into `text` (UTF-8) and named by offset and
// length.
struct ResolvedString {
  uint32_t offset;
  uint32_t length;
};
struct ResolvedFrame {
  uint8_t type;  // recording::FrameType: kJs, kJsNative, kWasm or kMarker
  uint8_t tier;  // as in recording::Frame
  uint8_t inlined;
  uint32_t function_flags;  // recording::JsFunctionFlag
  ResolvedString name, file, where;
  uint32_t line, column;                    // of the call; 0 unknown
  uint32_t function_line, function_column;  // of the function's start; 0 unknown
  uint64_t value;                           // kWasm: offset in the module, 0 unknown; kMarker: MarkerId
};
inline constexpr uint32_t kMaxResolvedFrames = 40;
struct ResolveBuffer {
  ResolvedFrame frames[kMaxResolvedFrames];
  uint32_t frame_count;
  char text[64 * 1024];
  uint32_t text_bytes;
};
// Only while `frame` is on the calling thread's stack (it reads the frame). Reads V8 objects through SafeRead, so a
// wrong guess is a marker, never a fault. Returns false when nothing is known (the caller records
// MarkerId::kJsFunctionUnknown).
// `*cacheable` is false when the answer is degraded for now only (in a collection, say) and must be asked again next
// time.
bool ResolveV8Frame(const WalkedFrame& frame, ResolveBuffer* out, bool* cacheable);

// Counts up when memory went in which objects of V8's heap were looked at: pages that a collection emptied, or the heap
// of an isolate whose collections and end we are not told of (an addon's own one on a thread of node's).
uint32_t HeapMemoryEpoch();

// Before memory is unmapped, so that no thread still takes it for readable; MemoryChanged afterwards all the same.
void MemoryWillGo(uint64_t start, uint64_t bytes);

// Told by the mmap hooks, after the change: executable or unmapped memory invalidates what is cached about pcs and heap
// chunks. True when the caller must call ForgetUnwindRules: FindCode's answers for pcs in there no longer hold.
bool MemoryChanged(uint64_t start, uint64_t bytes, bool unmapped_or_unreadable, bool executable);

// Told by preload/v8/isolates when an isolate starts and ends on the calling thread. The generation is part of every
// key: script ids are per isolate. 0 until the first call.
void SetCurrentIsolateGeneration(uint32_t generation);

}  // namespace nodeleak::preload::v8
