#include "preload/hooks/exec_target.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/base/system.h"

namespace nodeleak::preload {
namespace {

constexpr size_t kHeadBytes = 1024;  // the program headers and a script's first line are in here
constexpr size_t kPathBytes = 4096;
constexpr int kMaxScriptDepth = 4;  // BINPRM recursion limit of Linux, fs/exec.c

// Dynamic linkers of other libcs, by a part of their name.
constexpr const char* kForeignLinkers[] = {"ld-musl", "uClibc", "/linker64"};

long Open(const char* path) {
  return RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

size_t ReadAt(long file, void* out, size_t bytes, uint64_t offset) {
  const long got =
      RawSyscall(SYS_pread64, file, reinterpret_cast<long>(out), static_cast<long>(bytes), static_cast<long>(offset));
  return got > 0 ? static_cast<size_t>(got) : 0;
}

bool IsForeignLinker(const char* path) {
  for (const char* name : kForeignLinkers)
    if (strstr(path, name) != nullptr) return true;
  return false;
}

// A statically linked program ignores LD_PRELOAD and may hand it on to one that does not.
bool ElfTakesShim(long file, const char* head, size_t bytes) {
  Elf64_Ehdr elf;
  if (bytes < sizeof elf) return true;
  memcpy(&elf, head, sizeof elf);
  if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_machine != EM_X86_64) return false;
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    Elf64_Phdr program;
    if (ReadAt(file, &program, sizeof program, elf.e_phoff + i * sizeof program) != sizeof program) return true;
    if (program.p_type != PT_INTERP) continue;
    char linker[256];
    linker[ReadAt(file, linker, sizeof linker - 1, program.p_offset)] = '\0';
    return !IsForeignLinker(linker);
  }
  return true;
}

// "#!/path/of/interpreter argument": the path, into *out.
bool ReadInterpreter(const char* head, size_t bytes, char (&out)[kPathBytes]) {
  size_t at = 2;
  while (at < bytes && (head[at] == ' ' || head[at] == '\t')) ++at;
  size_t length = 0;
  while (at < bytes && head[at] != '\n' && head[at] != ' ' && head[at] != '\t') out[length++] = head[at++];
  out[length] = '\0';
  return length != 0;
}

// False: `file` is a script, whose interpreter is in *interpreter.
bool Decide(long file, bool* takes, char (&interpreter)[kPathBytes]) {
  char head[kHeadBytes];
  const size_t bytes = ReadAt(file, head, sizeof head, 0);
  *takes = true;
  if (bytes > SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
    *takes = ElfTakesShim(file, head, bytes);
    return true;
  }
  return bytes < 2 || memcmp(head, "#!", 2) != 0 || !ReadInterpreter(head, bytes, interpreter);
}

// As execvp does it: the first file of that name in PATH that may be executed.
bool FindInPath(const char* name, char (&out)[kPathBytes]) {
  const char* list = getenv("PATH");
  if (list == nullptr) list = "/bin:/usr/bin";
  const size_t name_bytes = strlen(name) + 1;
  for (;;) {
    const char* end = strchrnul(list, ':');
    const auto bytes = static_cast<size_t>(end - list);
    if (bytes + 1 + name_bytes <= kPathBytes) {
      memcpy(out, list, bytes);
      char* at = out + bytes;
      if (bytes != 0) *at++ = '/';
      memcpy(at, name, name_bytes);
      if (RawSyscall(SYS_faccessat, AT_FDCWD, reinterpret_cast<long>(out), X_OK) == 0) return true;
    }
    if (*end == '\0') return false;
    list = end + 1;
  }
}

bool CanOpen(const char* path) {
  const long file = Open(path);
  if (file < 0) return false;
  RawSyscall(SYS_close, file);
  return true;
}

}  // namespace

bool TakesShim(const ExecTarget& target, const char* shim) {
  if (!CanOpen(shim)) return false;  // after chroot or setuid, or when nodeleak is no longer there
  bool takes = true;
  char path[kPathBytes];
  if (target.path == nullptr) {
    if (Decide(target.file, &takes, path)) return takes;
  } else if (target.search_path && strchr(target.path, '/') == nullptr) {
    if (!FindInPath(target.path, path)) return true;
  } else {
    if (strlen(target.path) >= kPathBytes) return true;
    strcpy(path, target.path);
  }
  for (int depth = 0; depth <= kMaxScriptDepth; ++depth) {
    const long file = Open(path);
    if (file < 0) return true;
    const bool decided = Decide(file, &takes, path);
    RawSyscall(SYS_close, file);
    if (decided) return takes;
  }
  return takes;
}

}  // namespace nodeleak::preload
