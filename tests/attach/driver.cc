// A tracer for the tests: attaches and detaches as nodeleak does, and tells what it saw, one line of "name value" each.
//   driver cycles PID SHIM RECORDING COUNT ON_MS OFF_MS   that many times; pauses in microseconds
//   driver die PID SHIM RECORDING POINT                   attaches, detaches, and is killed when it comes to that point
//   driver calls PID COUNT                                malloc and free on borrowed threads, without a shim
//   driver hold PID                                       traces it until stdin ends
//   driver as UID PROGRAM [ARGUMENT...]                   runs a program as that user
//   driver text PID                                       libc's text in memory against its file: bytes that differ
//   driver points                                         the names of the points
//   driver calls-of-recorder                              the system calls that a seccomp filter must allow
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "recording/process.h"
#include "tracer/attach.h"
#include "tracer/proc_files.h"
#include "tracer/remote_call.h"
#include "tracer/remote_elf.h"
#include "tracer/remote_memory.h"
#include "tracer/seccomp_check.h"
#include "tracer/test_point.h"
#include "tracer/traced_thread.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::milliseconds;

[[noreturn]] void Fail(const absl::Status& status) {
  fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  exit(1);
}

AttachTarget Target(const char* pid) {
  absl::StatusOr<AttachTarget> target = CheckAttachable(static_cast<pid_t>(atoi(pid)));
  if (!target.ok()) Fail(target.status());
  return *target;
}

absl::StatusOr<AttachSession> Attach(char** arguments) {
  AttachOptions options;
  options.shim = arguments[1];
  options.recording = arguments[2];
  return AttachSession::Attach(Target(arguments[0]), options);
}

long Percentile(std::vector<long> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
}

int Cycles(char** arguments) {
  const int count = atoi(arguments[3]), on = atoi(arguments[4]), off = atoi(arguments[5]);
  std::vector<long> pauses, attach_ms;
  uint64_t blocks = 0;
  int failed = 0;
  for (int i = 0; i < count; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    absl::StatusOr<AttachSession> session = Attach(arguments);
    if (!session.ok()) {
      fprintf(stderr, "cycle %d: %s\n", i, std::string(session.status().message()).c_str());
      ++failed;
      if (!recording::IsProcessRunning(static_cast<uint32_t>(atoi(arguments[0])), Target(arguments[0]).start_ticks))
        break;
      continue;
    }
    attach_ms.push_back(std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin).count());
    std::this_thread::sleep_for(milliseconds(on));
    blocks += session->Look().live_blocks;
    if (absl::Status status = session->Detach(false); !status.ok()) {
      fprintf(stderr, "cycle %d: %s\n", i, std::string(status.message()).c_str());
      ++failed;
    }
    for (std::chrono::microseconds pause : session->pauses()) pauses.push_back(pause.count());
    if (i == 0)
      for (const std::string& note : session->notes()) fprintf(stderr, "note: %s\n", note.c_str());
    std::this_thread::sleep_for(milliseconds(off));
  }
  printf(
      "cycles %d\nfailed %d\nblocks %lu\npauses %zu\npause_p50 %ld\npause_p95 %ld\npause_max %ld\nattach_p50_ms %ld\n",
      count, failed, static_cast<unsigned long>(blocks), pauses.size(), Percentile(pauses, 0.5),
      Percentile(pauses, 0.95), Percentile(pauses, 1), Percentile(attach_ms, 0.5));
  return failed == 0 ? 0 : 1;
}

std::string g_deadly_point;

int Die(char** arguments) {
  g_deadly_point = arguments[3];
  g_test_observer = [](absl::string_view point) {
    if (point == g_deadly_point) kill(getpid(), SIGKILL);
  };
  absl::StatusOr<AttachSession> session = Attach(arguments);
  if (!session.ok()) Fail(session.status());
  const absl::Status status = session->Detach(false);
  if (!status.ok()) Fail(status);
  fprintf(stderr, "never came to '%s'\n", g_deadly_point.c_str());
  return 1;
}

int Calls(const char* pid, int count) {
  absl::StatusOr<RemoteMemory> memory = RemoteMemory::Open(Target(pid).pid);
  if (!memory.ok()) Fail(memory.status());
  absl::StatusOr<RemoteObjects> objects = RemoteObjects::Read(*memory);
  if (!objects.ok()) Fail(objects.status());
  absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(*memory, *objects, nullptr);
  if (!caller.ok()) Fail(caller.status());
  const RemoteObject& libc = *objects->FindByBaseName("libc.so");
  const RemoteAddress allocate = objects->FindSymbol(libc, "malloc")->address;
  RemoteStep release = RemoteStep::Call(objects->FindSymbol(libc, "free")->address, {0});
  release.result_argument = 0;
  int wrong = 0, refused = 0;
  for (int i = 0; i < count; ++i) {
    // A program that never sleeps is borrowed after two thirds of the patience: little is enough on a machine that has
    // time for us, and where it has not, it is asked again.
    const std::vector<RemoteStep> steps = {RemoteStep::Call(allocate, {5000}), release};
    auto results = caller->Call(steps, Borrow::Idle(), milliseconds(60), milliseconds(5000));
    if (absl::IsUnavailable(results.status()))
      results = caller->Call(steps, Borrow::Idle(), milliseconds(5000), milliseconds(5000));
    if (!results.ok()) {
      fprintf(stderr, "call %d: %s\n", i, std::string(results.status().message()).c_str());
      ++refused;
    } else if ((*results)[0] == 0) {
      ++wrong;
    }
  }
  printf("calls %d\nrefused %d\nwrong %d\n", count, refused, wrong);
  return wrong;
}

int Text(const char* pid) {
  absl::StatusOr<RemoteMemory> memory = RemoteMemory::Open(static_cast<pid_t>(atoi(pid)));
  if (!memory.ok()) Fail(memory.status());
  absl::StatusOr<RemoteObjects> objects = RemoteObjects::Read(*memory);
  if (!objects.ok()) Fail(objects.status());
  const RemoteObject* libc = objects->FindByBaseName("libc.so");
  const std::string file = ReadWholeFile(absl::StrCat("/proc/", pid, "/root", libc->name));
  size_t differ = 0, compared = 0;
  for (const Elf64_Phdr& segment : libc->segments) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    std::string bytes(segment.p_filesz, '\0');
    if (!memory->Read(libc->Segment(segment).start, bytes.data(), bytes.size()).ok()) return 1;
    for (size_t i = 0; i < bytes.size(); ++i) differ += bytes[i] != file[segment.p_offset + i] ? 1 : 0;
    compared += bytes.size();
  }
  printf("compared %zu\ndiffer %zu\n", compared, differ);
  return 0;
}

int Hold(const char* pid) {
  absl::StatusOr<TracedThread> thread = TracedThread::Seize(static_cast<pid_t>(atoi(pid)));
  if (!thread.ok()) Fail(thread.status());
  puts("ready");
  fflush(stdout);
  for (char byte; read(STDIN_FILENO, &byte, 1) > 0;) {
  }
  return 0;
}

int RunAs(char** arguments) {
  const auto user = static_cast<uid_t>(atoi(arguments[0]));
  if (setgroups(0, nullptr) != 0 || setgid(user) != 0 || setuid(user) != 0) return 1;
  execv(arguments[1], arguments + 1);
  perror(arguments[1]);
  return 1;
}

int Main(int count, char** arguments) {
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "cycles" && count == 8) return Cycles(arguments + 2);
  if (command == "die" && count == 6) return Die(arguments + 2);
  if (command == "calls" && count == 4) return Calls(arguments[2], atoi(arguments[3]));
  if (command == "text" && count == 3) return Text(arguments[2]);
  if (command == "hold" && count == 3) return Hold(arguments[2]);
  if (command == "as" && count > 3) return RunAs(arguments + 2);
  if (command == "points") {
    for (const char* point : kTestPoints) puts(point);
    return 0;
  }
  if (command == "calls-of-recorder") {
    for (const RecorderCall& call : CallsOfRecorder()) printf("%s %ld\n", call.name, call.number);
    return 0;
  }
  return 2;
}

}  // namespace
}  // namespace nodeleak::tracer

int main(int count, char** arguments) { return nodeleak::tracer::Main(count, arguments); }
