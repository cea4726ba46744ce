// Sleeps in a read, and after a line of input in another one, below an array that nobody has written to: what was on
// the stack there before is still there. Ends with its input.
#include <stdio.h>
#include <unistd.h>

namespace {

__attribute__((noinline)) int SleepDeeper(char* byte) {
  volatile char room[32 * 1024];
  room[0] = 0;
  return read(STDIN_FILENO, byte, 1) == 1 ? room[0] : 0;
}

int Sleep() {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {
  }
  puts("deeper");
  fflush(stdout);
  return SleepDeeper(&byte);
}

}  // namespace

int main() {
  puts("ready");
  fflush(stdout);
  return Sleep();
}
