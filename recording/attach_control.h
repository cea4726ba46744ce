// What a tracer outside and the shim inside a process that was attached to say to each other. Freestanding like
// layout.h: fixed-width integers, no pointers. The shim exports one AttachControl; the tracer reads and writes it
// through /proc/PID/mem, and trusts it no more than a recording: it lies in a process that somebody else controls.
//
//   state      kInert --start--> kStarting --> kWantsFile --file comes--> kRecording --stop--> kStopped --release-->
//   kInert
//                                   `-------------- trouble ---------------> kFailed (why)
//
// Only the shim writes `state`, only the tracer writes `request` (but for kCollect's answer). Hooks are put into the
// program's text between kRecording and kStopped, by the tracer alone; `hooks` remembers them, so that any later tracer
// can take them out.
#pragma once

#include <stdint.h>

namespace nodeleak::recording {

inline constexpr uint64_t kAttachMagic = 0x484341544b4c4e00ull;
inline constexpr uint32_t kAttachVersion = 6;  // one more with every change of this file or of what the rows mean

enum class AttachState : uint32_t {
  kInert = 0,      // loaded, nothing runs
  kStarting = 1,   // the shim's thread is being made
  kWantsFile = 2,  // waits for the recording file to be sent over file_socket, or for an offer
  kRecording = 3,
  kStopped = 4,    // frozen; the recording is still mapped
  kFailed = 5,     // `why` says what; the thread has ended
  kPreloaded = 6,  // by LD_PRELOAD: nothing here is for a tracer
};
enum class AttachRequest : uint32_t {
  kNone = 0,
  kStop = 1,     // freeze the recording
  kRelease = 2,  // no thread is inside the recorder any more: unmap everything and end
  kCollect =
      3,  // the picture of the end, and the freeze; the shim makes it kNone when the main thread cannot be reached
};

// What a borrowed thread is to do in kAttachSafePointSymbol.
enum class AttachSafePoint : uint32_t {
  kMeet = 0,       // its isolate is made known; where its event loop sleeps, or in Atomics.wait
  kEnd = 1,        // and the picture of the end is taken, then the freeze; in the loop of the main thread
  kInterrupt = 2,  // made known when V8 looks for interrupts next; in compiled JavaScript
};

// One function of the program that is hooked, by the shim's function of the same name.
struct AttachHook {
  char symbol[40];      // NUL-terminated; hooked at its first definition in link-map order
  uint64_t original;    // address of the pointer that the hook calls: gets the trampoline
  uint64_t trampoline;  // kTrampolineBytes in the shim's text for the displaced instructions
  uint64_t patched_at;  // the function's address while its first bytes, or slots that led to it, are ours; or 0
  // Not 0: a byte that becomes 1 with the hook, and the function is hooked only where it lies in one library with
  // malloc: the operators new and delete of an allocator, which do not call malloc. libstdc++'s do.
  uint64_t enable;
  uint8_t saved[16];     // what stood there
  uint32_t saved_bytes;  // 0: nothing did; the slots of the loaded objects lead to `hook`
  uint32_t reserved;
  uint64_t hook;  // our function of that name
};
static_assert(sizeof(AttachHook) == 104);
inline constexpr uint32_t kTrampolineBytes = 64;
inline constexpr uint32_t kMaxAttachHooks = 48;
// How a page begins that a tracer has made for jumps and displaced instructions near a library.
inline constexpr uint64_t kJumpPageMagic = 0x45474150504d554aull;
inline constexpr uint32_t kMaxJumpPages = 4;

// Where the tracer may not take file_socket (pidfd_getfd): what the shim opens in the tracer's own table of
// descriptors, /proc/pid/fd/..., where both see the same processes. It believes only that this is the file and the pipe
// whose inodes are named. The pipe's other end is the tracer's; its end says that the tracer is gone.
struct AttachOffer {
  uint32_t pid;  // not 0: there is an offer; written last
  int32_t file;
  int32_t pipe;
  uint32_t reserved;
  uint64_t file_inode, pipe_inode;
};

struct AttachControl {
  uint64_t magic;
  uint32_t version;
  uint32_t control_bytes;  // sizeof(AttachControl)
  uint32_t state;          // AttachState
  uint32_t request;        // AttachRequest
  uint32_t keep;           // 1: go on recording when the tracer is gone
  uint32_t pid;            // of the process that wrote the state, as it knows itself: a forked child has a copy
  uint32_t watcher;        // thread id of the shim's thread, as the process knows it; 0: none
  int32_t file_socket;     // descriptor in the target over which the recording is sent, while kWantsFile
  // settings of the next start
  uint64_t max_recording_bytes;
  uint64_t sample_bytes;
  // how far from a thread's fs base its recorder depth lies: 0 there means that the thread is not inside the recorder
  int64_t depth_offset;
  uint32_t hook_count;
  uint32_t other_allocator;  // a setting: 1 where the program's malloc is not libc's
  uint32_t partly_hooked;    // a setting: 1 where functions of the allocator are seen only through the objects' slots
  uint32_t watch_links;      // 1: such slots of objects that are loaded from now on are the shim's to find
  uint64_t wait_builtin;     // v8::internal::Builtin_AtomicsWait; 0: not known
  uint64_t jump_pages[kMaxJumpPages];  // addresses; one that does not begin with kJumpPageMagic is not there
  AttachHook hooks[kMaxAttachHooks];
  AttachOffer offer;
  char why[256];             // NUL-terminated, of kFailed
  char recording_path[512];  // for whoever reads or stops a kept recording
  char shim_path[512];       // where the file of the shim lies, for the names of its functions
};
static_assert(sizeof(AttachControl) ==
              88 + sizeof(AttachOffer) + 8 * kMaxJumpPages + 104 * kMaxAttachHooks + 256 + 512 + 512);

// The names that the shim exports for the tracer.
inline constexpr char kAttachControlSymbol[] = "nodeleak_attach_control";
inline constexpr char kAttachStartSymbol[] = "nodeleak_attach_start";  // int(): 0 or errno
inline constexpr char kAttachSafePointSymbol[] =
    "nodeleak_attach_safe_point";  // int(AttachSafePoint): 1; 0 for "not here"

}  // namespace nodeleak::recording
