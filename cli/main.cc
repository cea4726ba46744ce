#include <fcntl.h>

#include "cli/commands.h"

// Where we were started with a standard stream closed, the next file opened would take its number, and what is said
// there would go into that file. What takes its place can be used as little as a closed one, so that a report that
// nobody gets is an error. Closed again in the command, which finds its streams as they were.
static void OccupyStandardStreams() {
  for (int fd = 0; fd <= 2; ++fd)
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", (fd == 0 ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
}

int main(int argc, char** argv) {
  OccupyStandardStreams();
  std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return nodeleak::cli::Main(arguments);
}
