#include "tracer/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tracer/library_image.h"
#include "tracer/older_libc.h"
#include "tracer/proc_files.h"
#include "tracer/remote_call.h"
#include "tracer/test_point.h"
#include "tracer/unique_fd.h"

namespace nodeleak::tracer {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience(5000);     // to find a thread
constexpr milliseconds kLoadLimit(10'000);  // dlopen itself takes a millisecond
constexpr uint64_t kMfdExec = 0x10;         // MFD_EXEC: Linux 6.3; earlier kernels do not know it

absl::StatusOr<RemoteSymbol> FindFunction(const RemoteObjects& objects, const char* name) {
  // glibc before 2.34 has it in libdl.
  for (const char* library : {"libc.so", "libdl.so"}) {
    const RemoteObject* object = objects.FindByBaseName(library);
    if (object == nullptr) continue;
    if (const auto symbol = objects.FindSymbol(*object, name)) return *symbol;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("its C library has no function ", name, " (is it glibc, and libdl loaded?)"));
}

LibcFeatures LibcOf(const RemoteObjects& objects) {
  LibcFeatures libc;
  libc.defines_version = [&objects](const std::string& library, const std::string& version) {
    const RemoteObject* object = objects.FindByBaseName(library);
    return object != nullptr && objects.DefinesVersion(*object, version);
  };
  libc.has_function = [&objects](const char* name) { return objects.FindDefinition(name) != nullptr; };
  return libc;
}

// Memory files that a tracer left there when it was killed.
std::vector<int> FindLeftovers(pid_t pid) {
  std::vector<int> descriptors;
  for (int descriptor : ReadDescriptors(pid)) {
    char target[64] = {};
    const std::string link = ProcPath(pid, absl::StrCat("fd/", descriptor));
    if (readlink(link.c_str(), target, sizeof target - 1) > 0 && absl::StartsWith(target, "/memfd:nodeleak"))
      descriptors.push_back(descriptor);
  }
  return descriptors;
}

absl::Status WriteImage(pid_t pid, int remote_fd, const LibraryImage& image) {
  UniqueFd file(open(ProcPath(pid, absl::StrCat("fd/", remote_fd)).c_str(), O_WRONLY | O_CLOEXEC));
  for (size_t done = 0; file.valid() && done < image.bytes.size();) {
    const ssize_t wrote = write(file.get(), image.bytes.data() + done, image.bytes.size() - done);
    if (wrote <= 0) break;
    done += static_cast<size_t>(wrote);
    if (done == image.bytes.size()) return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("cannot write ", image.name, " into its memory file: ", strerror(errno)));
}

// One injection: which libraries, and their descriptors in the target.
class Injection {
 public:
  Injection(const RemoteMemory& memory, const RemoteObjects& objects, const RemoteCaller& caller,
            std::vector<LibraryImage> images)
      : memory_(memory), objects_(objects), caller_(caller), images_(std::move(images)) {}

  absl::Status Run() {
    absl::Status status = MakeFiles(MFD_CLOEXEC | kMfdExec);
    if (status.ok() && descriptors_[0] == -EINVAL) status = MakeFiles(MFD_CLOEXEC);
    if (!status.ok()) return status;
    if (descriptors_[0] < 0) {
      const int error = static_cast<int>(-descriptors_[0]);
      return absl::PermissionDeniedError(
          absl::StrCat("it cannot create a memory file (memfd_create: ", strerror(error), ")",
                       error == EPERM || error == ENOSYS || error == EACCES ? "; is it under a seccomp filter?" : ""));
    }
    for (size_t i = 0; i < images_.size(); ++i) {
      status = WriteImage(memory_.pid(), static_cast<int>(descriptors_[i]), images_[i]);
      if (!status.ok()) return status;
    }
    ReachTestPoint("library written");
    return Load();
  }

 private:
  absl::Status MakeFiles(uint64_t flags) {
    constexpr char kName[] = "nodeleak";  // as /proc/PID/maps will show it
    const RemoteAddress name = caller_.room().texts();
    if (absl::Status status = memory_.Write(name, kName, sizeof kName); !status.ok()) return status;
    std::vector<RemoteStep> steps;
    for (size_t i = 0; i < images_.size(); ++i)
      steps.push_back(RemoteStep::Syscall(SYS_memfd_create, {ToNumber(name), flags}));
    for (int leftover : FindLeftovers(memory_.pid()))
      if (steps.size() < kMaxRemoteSteps)
        steps.push_back(RemoteStep::Syscall(SYS_close, {static_cast<uint64_t>(leftover)}));
    absl::StatusOr<std::vector<uint64_t>> results = caller_.Call(steps, Borrow::Idle(), kPatience, kLoadLimit);
    if (!results.ok()) return results.status();
    descriptors_.assign(results->begin(), results->begin() + static_cast<ptrdiff_t>(images_.size()));
    return absl::OkStatus();
  }

  // dlopen each, then dlerror when the last one failed, then close all.
  absl::Status Load() {
    const absl::StatusOr<RemoteSymbol> open = FindFunction(objects_, "dlopen"),
                                       error = FindFunction(objects_, "dlerror");
    if (!open.ok()) return open.status();
    if (!error.ok()) return error.status();
    std::vector<RemoteStep> steps;
    RemoteAddress text = caller_.room().texts();
    for (int64_t descriptor : descriptors_) {
      const std::string path = absl::StrCat("/proc/self/fd/", descriptor);
      if (absl::Status status = memory_.Write(text, path.c_str(), path.size() + 1); !status.ok()) return status;
      steps.push_back(RemoteStep::Call(open->address, {ToNumber(text), RTLD_NOW}));
      text = text + path.size() + 1;
    }
    const size_t last = steps.size() - 1;
    steps.push_back(RemoteStep::Call(error->address, {}));
    steps.back().when = RemoteStep::When::kIfZero;
    steps.back().condition_step = static_cast<int>(last);
    for (int64_t descriptor : descriptors_)
      steps.push_back(RemoteStep::Syscall(SYS_close, {static_cast<uint64_t>(descriptor)}));
    absl::StatusOr<std::vector<uint64_t>> results = caller_.Call(steps, Borrow::Idle(), kPatience, kLoadLimit);
    if (!results.ok()) return results.status();
    if ((*results)[last] != 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("its dynamic linker could not load the recorder: ",
                     memory_.ReadString(static_cast<RemoteAddress>((*results)[last + 1]))));
  }

  const RemoteMemory& memory_;
  const RemoteObjects& objects_;
  const RemoteCaller& caller_;
  std::vector<LibraryImage> images_;
  std::vector<int64_t> descriptors_;
};

}  // namespace

absl::Status InjectLibrary(const RemoteMemory& memory, const RemoteObjects& objects, const std::string& path) {
  absl::StatusOr<RemoteCaller> caller = RemoteCaller::Create(memory, objects, nullptr);
  if (!caller.ok()) return caller.status();
  absl::StatusOr<std::vector<LibraryImage>> images = ReadLibraryWithNeeded(path);
  if (!images.ok()) return images.status();
  std::vector<LibraryImage> missing;
  for (LibraryImage& image : *images)
    if (objects.FindByBaseName(image.name) == nullptr) missing.push_back(std::move(image));
  const LibcFeatures libc = LibcOf(objects);
  for (LibraryImage& image : missing) FitToOlderLibc(libc, &image);
  return Injection(memory, objects, *caller, std::move(missing)).Run();
}

}  // namespace nodeleak::tracer
