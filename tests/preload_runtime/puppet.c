// A program that is not node, for the hooks of process events: `puppet <what>`.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void* Leaves(void* argument) {
  if (argument != NULL) pthread_exit(argument);
  return NULL;
}

static int Threads(void) {
  pthread_t threads[3];
  void* value = NULL;
  for (long i = 0; i < 3; ++i)
    if (pthread_create(&threads[i], NULL, Leaves, (void*)(i * 19)) != 0) return 1;
  long sum = 0;
  for (int i = 0; i < 3; ++i) {
    pthread_join(threads[i], &value);
    sum += (long)value;
  }
  return (int)sum;  // 57
}

static int Wait(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WEXITSTATUS(status);
}

// The vfork child's _exit runs in our memory; we go on.
static int Vfork(void) {
  pid_t pid = vfork();
  if (pid == 0) {
    execl("/no/such/program", "x", (char*)NULL);
    _exit(21);
  }
  return Wait(pid) + 1;
}

static int Fork(void) {
  pid_t pid = fork();
  if (pid == 0) exit(31);
  return Wait(pid) + 1;
}

static int Cloned(void* argument) { return (int)(long)argument; }
static int Clone(void) {
  static char stack[65536] __attribute__((aligned(16)));
  return Wait(clone(Cloned, stack + sizeof stack, SIGCHLD, (void*)41L)) + 1;
}

static volatile sig_atomic_t g_signals;
static void Count(int number) { g_signals += number; }

// Each answer must be what was set before, whoever set it.
static int Dispositions(void) {
  struct sigaction action, before;
  memset(&action, 0, sizeof action);
  if (sigaction(SIGTERM, NULL, &before) != 0 || before.sa_handler != SIG_DFL) return 1;
  if (signal(SIGTERM, Count) != SIG_DFL) return 2;
  if (signal(SIGTERM, SIG_IGN) != Count) return 3;
  action.sa_handler = SIG_DFL;
  if (sigaction(SIGTERM, &action, &before) != 0 || before.sa_handler != SIG_IGN) return 4;
  action.sa_handler = Count;
  action.sa_flags = SA_RESETHAND;
  if (sigaction(SIGTERM, &action, &before) != 0 || before.sa_handler != SIG_DFL) return 5;
  raise(SIGTERM);
  if (g_signals != SIGTERM) return 6;
  if (sigaction(SIGTERM, NULL, &before) != 0 || before.sa_handler != SIG_DFL) return 7;
  return sysv_signal(SIGINT, Count) == SIG_DFL && sigset(SIGHUP, SIG_DFL) == SIG_DFL ? 61 : 8;
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "";
  if (strcmp(what, "returns") == 0) return 11;
  if (strcmp(what, "exits") == 0) exit(12);
  if (strcmp(what, "leaves") == 0) _exit(13);
  if (strcmp(what, "quick") == 0) quick_exit(14);
  if (strcmp(what, "threads") == 0) return Threads();
  if (strcmp(what, "vfork") == 0) return Vfork();
  if (strcmp(what, "fork") == 0) return Fork();
  if (strcmp(what, "clone") == 0) return Clone();
  if (strcmp(what, "dispositions") == 0) return Dispositions();
  if (strcmp(what, "execs") == 0) return execlp(arguments[0], "puppet", "returns", (char*)NULL);
  if (strcmp(what, "execFails") == 0) return execv("/no/such/program", arguments) == -1 ? 71 : 1;
  if (strcmp(what, "killed") == 0) return raise(SIGTERM);
  return 1;
}
