// Runs inside node, on any thread, possibly inside malloc. Never allocates, throws, or goes through a hooked function.
#pragma once

namespace nodeleak::preload {

// A raw system call that may write a file: beyond RLIMIT_FSIZE it is -EFBIG, and no SIGXFSZ comes to the program.
long RawWritingSyscall(long number, long a, long b, long c, long d = 0);

}  // namespace nodeleak::preload
