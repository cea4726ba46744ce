#include "report/threads.h"

#include "absl/strings/str_cat.h"
#include "report/absl_view.h"

namespace nodeleak::report {
namespace {

struct ThreadRule {
  std::string_view text;
  const char* name;
};
// By a function on the stack of the pthread_create call, innermost first.
constexpr ThreadRule kCreators[] = {
    {"init_threads", "libuv pool"},
    {"init_once", "libuv pool"},
    {"uv__work_submit", "libuv pool"},
    {"uv__threadpool", "libuv pool"},
    {"uv_queue_work", "libuv pool"},
    {"node::worker::Worker::StartThread", "worker"},
    {"node::WorkerThreadsTaskRunner", "V8 workers"},
    {"node::NodePlatform::NodePlatform", "V8 workers"},
    {"v8::platform::", "V8 workers"},
    {"v8::internal::wasm", "V8 workers"},
    {"node::inspector::", "inspector"},
    {"node::tracing::", "tracing"},
    {"node::Watchdog", "watchdog"},
    {"node::crypto::StartLoadingCertificatesOffThread", "certificates"},
};
// By comm, where the creation was not seen: node 24 and libuv 1.50 name theirs.
constexpr ThreadRule kComms[] = {
    {"libuv-worker", "libuv pool"},    {"iou-sqp", "io_uring"},          {"V8Worker", "V8 workers"},
    {"DelayedTaskSche", "V8 workers"}, {"SignalInspector", "inspector"},
};

std::string NameByCreator(const StackView& creation) {
  for (const ClassifiedFrame* frame : creation) {
    if (frame->frame.type != FrameType::kNative) continue;
    for (const ThreadRule& rule : kCreators) {
      if (frame->frame.function.find(rule.text) != std::string::npos) return rule.name;
    }
  }
  return "";
}

std::string NameByComm(std::string_view comm) {
  for (const ThreadRule& rule : kComms) {
    if (comm.starts_with(rule.text)) return rule.name;
  }
  return "";
}

std::string_view CommOfMain(const recording::Recording& recording) {
  for (const recording::ThreadInfo& thread : recording.threads) {
    if (thread.role == recording::ThreadRole::kMain) return StdView(thread.name);
  }
  return "";
}

std::string NameOf(const recording::ThreadInfo& thread, const FrameTable& frames, std::string_view main_comm) {
  if (thread.role == recording::ThreadRole::kMain) return "main";
  if (thread.role == recording::ThreadRole::kNodeleak) return "nodeleak";
  if (thread.worker_number != 0) return absl::StrCat("worker ", thread.worker_number);
  std::string name;
  if (thread.creation_stack != recording::kNoIndex) name = NameByCreator(frames.View(thread.creation_stack));
  if (name.empty()) name = NameByComm(StdView(thread.name));
  if (!name.empty()) return name;
  // A thread that nobody named carries the name of the program.
  return thread.name.empty() || StdView(thread.name) == main_comm ? absl::StrCat("thread ", thread.tid)
                                                                  : std::string(thread.name);
}

}  // namespace

std::vector<std::string> ThreadNames(const recording::Recording& recording, const FrameTable& frames) {
  const std::string_view main_comm = CommOfMain(recording);
  std::vector<std::string> names;
  names.reserve(recording.threads.size());
  for (const recording::ThreadInfo& thread : recording.threads) names.push_back(NameOf(thread, frames, main_comm));
  return names;
}

}  // namespace nodeleak::report
