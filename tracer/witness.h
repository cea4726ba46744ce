// Outside. A process of ours in the command's process group that does nothing but wait for signals. What was sent to
// the whole group (by a shell's kill %1, by timeout, by the command itself) reaches the command, us and the witness;
// what was sent to us alone does not reach the witness, and is to be passed on.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "tracer/unique_fd.h"

namespace nodeleak::tracer {

class Witness {
 public:
  // `signals` are blocked in the calling thread. When no process can be made, nothing is ever seen.
  explicit Witness(const sigset_t& signals);
  ~Witness();
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;

  // True: the witness got that signal from the same sender at the same time. Waits for it a tenth of a second, and
  // longer only while the witness has something to do and is not let run.
  bool SawToo(const siginfo_t& signal) const;

 private:
  pid_t pid_ = -1;
  UniqueFd reports_;
};

}  // namespace nodeleak::tracer
