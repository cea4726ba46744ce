// Inside node, on the main thread, before main(): where the recording goes and what its header says of the process.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/base/guard.h"
#include "preload/base/safe_read.h"
#include "preload/base/writing_syscall.h"
#include "preload/recorder/confirmation.h"
#include "preload/recorder/memory_pictures.h"
#include "preload/recorder/older_buffers.h"
#include "preload/recorder/recorder_state.h"
#include "preload/recorder/sampler.h"
#include "preload/recorder/thread_state.h"
#include "preload/unwind/modules.h"
#include "recording/layout.h"

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));  // the linker's: our own ELF header

namespace nodeleak::preload {
namespace {

using recording::Header;
using recording::StringRef;
using recording::TableId;

constexpr size_t kMaxPath = 4096;

StringRef Intern(const char* text, size_t bytes) { return g_recorder.stacks.InternString(text, bytes); }

// Appends with a bound; false when it does not fit.
bool Append(char* out, size_t* length, const char* text, size_t bytes) {
  if (*length + bytes >= kMaxPath) return false;
  memcpy(out + *length, text, bytes);
  *length += bytes;
  out[*length] = '\0';
  return true;
}

size_t FormatNumber(uint64_t value, char (&out)[24]) {
  char reversed[24];
  size_t count = 0;
  do reversed[count++] = static_cast<char>('0' + value % 10);
  while ((value /= 10) != 0);
  for (size_t i = 0; i < count; ++i) out[i] = reversed[count - 1 - i];
  return count;
}

const char* BaseName(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

// %p is the pid, %n the program's name, %% a percent sign. Without %p, the pid goes in before the extension for all but
// the command itself.
bool ExpandPath(const RecorderOptions& options, const char* executable, char (&out)[kMaxPath]) {
  char pid[24];
  const size_t pid_length = FormatNumber(static_cast<uint64_t>(RawSyscall(SYS_getpid)), pid);
  size_t length = 0;
  bool has_pid = false;
  for (const char* p = options.path_template; *p != '\0'; ++p) {
    bool fits = true;
    if (p[0] == '%' && p[1] == 'p') {
      fits = Append(out, &length, pid, pid_length);
      has_pid = true;
      ++p;
    } else if (p[0] == '%' && p[1] == 'n') {
      fits = Append(out, &length, BaseName(executable), strlen(BaseName(executable)));
      ++p;
    } else {
      fits = Append(out, &length, p, 1);
      if (p[0] == '%' && p[1] == '%') ++p;
    }
    if (!fits) return false;
  }
  if (has_pid || (options.flags & recording::kIsRootCommand) != 0) return true;
  char tail[kMaxPath];
  char* dot = strrchr(out, '.');
  if (dot == nullptr || strchr(dot, '/') != nullptr) dot = out + length;
  strcpy(tail, dot);
  length = static_cast<size_t>(dot - out);
  return Append(out, &length, ".", 1) && Append(out, &length, pid, pid_length) &&
         Append(out, &length, tail, strlen(tail));
}

void ReadLink(const char* path, char (&out)[kMaxPath]) {
  const long length =
      RawSyscall(SYS_readlinkat, AT_FDCWD, reinterpret_cast<long>(path), reinterpret_cast<long>(out), kMaxPath - 1);
  out[length > 0 ? length : 0] = '\0';
}

// Field 22 of /proc/self/stat, counted behind the command name's closing parenthesis.
uint64_t ReadStartTicks() {
  MappedText stat = ReadWholeFile("/proc/self/stat");
  const char* p = stat.data != nullptr ? strrchr(stat.data, ')') : nullptr;
  uint64_t ticks = 0;
  if (p != nullptr) {
    constexpr int kFieldsToSkip = 20;
    for (int field = 0; field < kFieldsToSkip && p != nullptr; ++field) p = strchr(p + 1, ' ');
    if (p != nullptr) ticks = strtoull(p, nullptr, 10);
  }
  UnmapMemory(stat.data, stat.mapped);
  return ticks;
}

uint64_t RealtimeNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

const char* g_shim_path;

uint32_t RecordModule(const ModuleInfo& info, const char* path) {
  recording::Module module = {};
  if (g_shim_path != nullptr && info.start == reinterpret_cast<uint64_t>(__ehdr_start)) path = g_shim_path;
  module.path = Intern(path, strlen(path));
  memcpy(module.build_id, info.build_id, sizeof module.build_id);
  module.build_id_bytes = info.build_id_bytes;
  module.bias = info.bias;
  module.start = info.start;
  module.end = info.end;
  module.loaded_ns = NanosecondsSinceStart();
  module.is_executable = info.is_executable;
  return g_recorder.modules.Append(module);
}

void SetUnloaded(uint32_t index, uint64_t unloaded_ns) {
  if (index != recording::kNoIndex) g_recorder.modules[index].unloaded_ns = unloaded_ns;
}
void RecordModuleGone(uint32_t index) { SetUnloaded(index, NanosecondsSinceStart()); }
void RecordModuleBack(uint32_t index) { SetUnloaded(index, 0); }

void FreedRangePart(const recording::Range& part) {
  recording::Stack& stack = g_recorder.stacks[part.stack];
  __atomic_fetch_add(&stack.freed_bytes, part.end - part.start, __ATOMIC_RELAXED);
  if (part.protection != PROT_NONE) CountIfConfirmed(part.stack, part.birth_tick, part.end - part.start, 1);
}

bool AttachTables() {
  RecordingFile* file = &g_recorder.file;
  g_recorder.blocks.Attach(file);
  g_recorder.ranges.Attach(file, FreedRangePart);
  g_recorder.modules.Attach(file, TableId::kModules, 64);
  g_recorder.isolates.Attach(file, TableId::kIsolates, 32);
  g_recorder.spaces.Attach(file, TableId::kSpaces, 64);
  g_recorder.timeline.Attach(file, TableId::kTimeline, 512);
  g_recorder.checkpoints.Attach(file);
  AttachPictures(file);
  g_recorder.freed_by_gc.Attach(file, TableId::kFreedByGc, 1024);
  g_recorder.gc_answers.Attach(file, TableId::kGcAnswers, 64);
  g_recorder.older_buffers.Attach(file, TableId::kOlderBuffers, 1024);
  g_recorder.buffer_lists.Attach(file, TableId::kBufferLists, 64);
  return g_recorder.stacks.Attach(file) && g_recorder.threads.Attach(file);
}

void DescribeProcess(const RecorderOptions& options, const char* executable) {
  Header* header = g_recorder.file.header();
  header->flags = options.flags;
  if (g_recorder.file.is_file_size_limited()) header->flags |= recording::kFileSizeLimited;
  header->pid = static_cast<uint32_t>(RawSyscall(SYS_getpid));
  header->ppid = static_cast<uint32_t>(RawSyscall(SYS_getppid));
  header->process_start_ticks = ReadStartTicks();
  header->executable = Intern(executable, strlen(executable));
  MappedText command = ReadWholeFile("/proc/self/cmdline");
  if (command.data != nullptr) header->command = Intern(command.data, command.bytes);
  UnmapMemory(command.data, command.mapped);
  char directory[kMaxPath];
  const long length = RawSyscall(SYS_getcwd, reinterpret_cast<long>(directory), sizeof directory);
  if (length > 1) header->working_directory = Intern(directory, static_cast<size_t>(length - 1));
  header->exit_code = -1;
  StartSampling(options.sample_bytes);
  header->sample_bytes = SampleRate() != 0 ? 1ull << SampleRate() : 0;
  header->flags |= recording::kCheckpointsAreChanges;
  if (SamplingIsAutomatic()) header->flags |= recording::kSampleAutomatic;
  header->on_rss_bytes = options.on_rss_bytes;
  if (!options.gc_at_end) header->gc_at_end = static_cast<uint32_t>(recording::GcAtEnd::kOff);
}

ControlPage* MakeControlPage() {
  ControlPage* page = static_cast<ControlPage*>(MapMemory(recording::kPageBytes));
  if (page == nullptr) return nullptr;
  // Linux 4.14; without it a fork that bypasses libc would go on recording: then rather not at all.
  if (RawSyscall(SYS_madvise, reinterpret_cast<long>(page), recording::kPageBytes, MADV_WIPEONFORK) != 0)
    return nullptr;
  return page;
}

// A link's text counts for no limit of files' sizes.
void TellByLink(const char* index_path, const char* line) {
  char link[kMaxPath];
  const int length = snprintf(link, sizeof link, "%s.%ld", index_path, RawSyscall(SYS_getpid));
  if (length > 0 && static_cast<size_t>(length) < sizeof link)
    RawSyscall(SYS_symlink, reinterpret_cast<long>(line), reinterpret_cast<long>(link));
}

}  // namespace

void TellLauncher(const char* index_path, const char* line) {
  if (index_path == nullptr) return;
  const long fd = RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(index_path), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return;
  char text[kMaxPath + 1];
  size_t length = 0;
  for (; line[length] != '\0' && length < kMaxPath; ++length) text[length] = line[length];
  text[length++] = '\n';
  const long written = RawWritingSyscall(SYS_write, fd, reinterpret_cast<long>(text), static_cast<long>(length));
  RawSyscall(SYS_close, fd);
  if (written == -EFBIG) TellByLink(index_path, line);
}

bool StartRecording(const RecorderOptions& options, const char** why) {
  static char path[kMaxPath];
  static char executable[kMaxPath];
  ReadLink("/proc/self/exe", executable);
  const bool own_file = options.path_template != nullptr;
  if (own_file && !ExpandPath(options, executable, path)) {
    *why = "the path of the recording is too long";
    return false;
  }
  ControlPage* control = g_recorder.control != nullptr ? g_recorder.control : MakeControlPage();
  if (control == nullptr) {
    *why = "madvise is refused (MADV_WIPEONFORK: Linux before 4.14, or a seccomp filter)";
    if (!own_file) RawSyscall(SYS_close, options.descriptor);
    return false;
  }
  if (own_file ? !g_recorder.file.Create(path, options.max_bytes, why)
               : !g_recorder.file.Adopt(options.descriptor, options.max_bytes, why)) {
    return false;
  }
  Header* header = g_recorder.file.header();
  g_recorder.start_ns = MonotonicNanoseconds();
  header->start_monotonic_ns = g_recorder.start_ns;
  header->start_realtime_ns = RealtimeNanoseconds();
  if (!AttachTables()) {
    *why = g_recorder.file.is_file_size_limited()
               ? "the limit for the size of files is too low for its tables (ulimit -f)"
               : "there is no room for its tables (--max-recording)";
    g_recorder.file.Close();
    if (own_file) RawSyscall(SYS_unlink, reinterpret_cast<long>(path));
    return false;
  }
  g_recorder.control = control;
  DescribeProcess(options, executable);
  g_shim_path = options.shim_path;
  ForgetModules();  // an earlier recording has numbered them
  SetModuleObservers({RecordModule, RecordModuleGone, RecordModuleBack});
  RefreshModules();
  if (options.path_template != nullptr) CurrentThreadState();  // the main thread is the first of the table
  SetCapability(recording::CapabilityId::kNativeStacks, recording::CapabilityState::kFull, nullptr);
  SetCapability(recording::CapabilityId::kMappings, recording::CapabilityState::kFull, nullptr);
  TellLauncher(options.index_path, path);
  __atomic_store_n(&header->state, static_cast<uint32_t>(recording::ProcessState::kRecording), __ATOMIC_RELEASE);
  return true;
}

void ReleaseRecording() {
  ++g_recorder.number;
  g_recorder.file.Close();
  CloseOwnMemory();
  g_recorder.file = {};
  g_recorder.blocks = {};
  g_recorder.ranges = {};
  g_recorder.stacks.Release();
  g_recorder.stacks = {};
  g_recorder.threads.Release();
  g_recorder.isolates = {};
  g_recorder.spaces = {};
  g_recorder.timeline = {};
  g_recorder.checkpoints = {};
  g_recorder.modules = {};
  g_recorder.pictures = {};
  g_recorder.picture_uses = {};
  g_recorder.picture_arenas = {};
  g_recorder.own_mappings = {};
  g_recorder.freed_by_gc = {};
  g_recorder.gc_answers = {};
  g_recorder.older_buffers = {};
  g_recorder.buffer_lists = {};
  g_recorder.heap_used = 0;
  g_recorder.sampled = 0;
  g_recorder.frozen = static_cast<uint32_t>(Frozen::kNot);
  ForgetSchedule();
  ForgetRequests();
  ForgetConfirmation();
  ForgetOlderBuffers();
  ForgetPictures();
}

}  // namespace nodeleak::preload
