// A C program for the end-to-end tests: native MODE. Each mode does one thing that a preload library easily breaks.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kThreads = 4, kRounds = 4000, kKept = 37 };
extern char** environ;

static void* volatile escaped;
static void* Escape(void* block) {
  escaped = block;
  return block;
}

static int WaitFor(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Blocks that stay, in one function so that a report shows one group for them.
__attribute__((noinline)) static void KeepSome(size_t size) {
  for (int i = 0; i < kKept; i++) Escape(malloc(size));
}

// Blocks handed from thread to thread: freed where they were not allocated.
static void* slots[kThreads][16];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;

static int with_realloc;

static void* Churn(void* argument) {
  const uintptr_t self = (uintptr_t)argument;
  uint32_t random = 12345u + (uint32_t)self;
  for (int i = 0; i < kRounds; i++) {
    random = random * 1664525u + 1013904223u;
    const size_t size = 1 + (random >> 20) % 3001;
    void* block = (i % 3 == 0) ? calloc(size, 3) : malloc(size);
    if (with_realloc && i % 5 == 0) block = realloc(Escape(block), size * 2 + 1);
    if (with_realloc && i % 7 == 0) block = realloc(Escape(block), size / 2 + 1);
    pthread_mutex_lock(&slots_lock);
    void** slot = &slots[(self + (uintptr_t)i) % kThreads][i % 16];
    void* before = *slot;
    *slot = Escape(block);
    pthread_mutex_unlock(&slots_lock);
    free(before);
  }
  KeepSome(1999 + self);
  return NULL;
}

static int Totals(void) {
  pthread_t threads[kThreads];
  for (uintptr_t i = 0; i < kThreads; i++) pthread_create(&threads[i], NULL, Churn, (void*)i);
  for (int i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  return 0;
}

static int Fork(void) {
  KeepSome(5003);
  puts("before the fork");
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    KeepSome(90001);
    puts("child");
    exit(7);
  }
  printf("child ended with %d\n", WaitFor(child));
  KeepSome(5009);
  return 3;
}

static int Vfork(void) {
  const pid_t child = vfork();
  if (child == 0) _exit(9);
  printf("vfork %d\n", WaitFor(child));
  const pid_t second = vfork();
  if (second == 0) {
    execl("/bin/sh", "sh", "-c", "exit 11", (char*)NULL);
    _exit(1);
  }
  printf("vfork and exec %d\n", WaitFor(second));
  pid_t spawned = 0;
  char* arguments[] = {"sh", "-c", "echo \"spawned\"; exit 13", NULL};
  fflush(stdout);
  if (posix_spawn(&spawned, "/bin/sh", NULL, NULL, arguments, environ) != 0) return 1;
  printf("spawn %d, ", WaitFor(spawned));
  char* missing[] = {"/no/such/program", NULL};
  printf("missing %s\n", strerror(posix_spawn(&spawned, missing[0], NULL, NULL, missing, environ)));
  KeepSome(5011);
  return 0;
}

// As daemons do: every descriptor closed, also those that we do not know.
static int Daemon(const char* result) {
  const pid_t child = fork();
  if (child > 0) return WaitFor(child);
  setsid();
  if (fork() > 0) _exit(0);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  for (int fd = 0; fd < 1024 && fd < (int)limit.rlim_cur; fd++) close(fd);
  KeepSome(5021);
  const int out = open(result, O_CREAT | O_WRONLY | O_TRUNC, 0600);
  const char text[] = "the daemon lives\n";
  if (out != 0 || write(out, text, sizeof text - 1) < 0) _exit(1);
  close(out);
  exit(0);
}

// The same without a fork: the process itself closes what is not its own and goes on allocating.
static int CloseAll(void) {
  for (int fd = 3; fd < 1024; fd++) close(fd);
  KeepSome(5023);
  const int first = open("/dev/null", O_RDONLY);
  printf("the next descriptor is %d\n", first);
  return 0;
}

static sigjmp_buf after_fault;
static void OnFault(int number) { siglongjmp(after_fault, number); }

static int Fault(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = OnFault;
  for (volatile int i = 0; i < 3; i++) {
    sigaction(SIGSEGV, &action, NULL);
    const int number = sigsetjmp(after_fault, 1);
    if (number == 0) *(volatile int*)16 = 1;
    printf("caught %d\n", number);
    KeepSome(5039);
  }
  signal(SIGSEGV, SIG_DFL);
  fflush(stdout);
  *(volatile int*)16 = 1;
  return 0;
}

static int Descriptors(void) {
  DIR* directory = opendir("/proc/self/fd");
  int count = 0;
  for (struct dirent* entry; (entry = readdir(directory)) != NULL;) count += entry->d_name[0] != '.';
  closedir(directory);
  printf("%d descriptors\n", count);
  return 0;
}

static int OpenAll(void) {
  int count = 0;
  for (int refused = 0; refused < 25;) {  // for a moment a thread may have one open that is not the program's
    if (open("/dev/null", O_RDONLY) >= 0) {
      count++;
    } else {
      refused++;
      usleep(20000);
    }
  }
  KeepSome(5077);
  printf("%d opened\n", count);
  return 0;
}

static int Mappings(void) {
  const size_t page = 4096;
  char* all = mmap(NULL, 100 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(all + 10 * page, 20 * page);                                           // 80 pages in two pieces
  char* grown = mremap(all + 30 * page, 70 * page, 90 * page, MREMAP_MAYMOVE);  // 10 + 90
  mmap(grown, 5 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  char* left = mmap(NULL, 7 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mremap(left, 7 * page, 7 * page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);  // 7 + 7
  char* shared = mmap(NULL, 6 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  mremap(shared, 0, 6 * page, MREMAP_MAYMOVE);  // 6 + 6
  return grown == MAP_FAILED;
}

static int __attribute__((noreturn)) Loop(void) {
  KeepSome(5051);
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}

int main(int count, char** arguments) {
  const char* mode = count > 1 ? arguments[1] : "";
  with_realloc = strcmp(mode, "totals") == 0;
  if (with_realloc || strcmp(mode, "plain") == 0) return Totals();
  if (strcmp(mode, "fork") == 0) return Fork();
  if (strcmp(mode, "vfork") == 0) return Vfork();
  if (strcmp(mode, "daemon") == 0) return Daemon(arguments[2]);
  if (strcmp(mode, "close-all") == 0) return CloseAll();
  if (strcmp(mode, "fault") == 0) return Fault();
  if (strcmp(mode, "descriptors") == 0) return Descriptors();
  if (strcmp(mode, "open-all") == 0) return OpenAll();
  if (strcmp(mode, "mappings") == 0) return Mappings();
  if (strcmp(mode, "loop") == 0) return Loop();
  fprintf(stderr, "native: no mode %s\n", mode);
  return 2;
}
