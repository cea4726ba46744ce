// Outside. Starts a command with the shim preloaded and waits for its end. The command notices nothing of us: it keeps
// our standard streams, process group, signal mask and dispositions, and its end is told as it was. Errors are
// sentences and come before the command has run a single instruction.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nodeleak::tracer {

struct LaunchOptions {
  std::vector<std::string> command;  // program and arguments; the program is looked up in PATH
  std::string shim;                  // absolute path of libnodeleak-preload.so
  std::string output_template;       // absolute path of the recording, with %p and %n
  uint64_t max_recording_bytes = 1ull << 30;
  uint64_t sample_bytes = 0;  // 0: every allocation
  bool gc_at_end = true;
  std::string children = "node";  // node, all or none
  uint64_t on_rss_bytes = 0;      // 0: no
  // Called now and then while the command runs, with the recordings begun so far. May be empty.
  std::function<void(const std::vector<std::string>& recordings)> look;
};

struct LaunchResult {
  pid_t pid = 0;
  int exit_code = 0;                    // when end_signal is 0
  int end_signal = 0;                   // the signal that ended the command
  std::vector<std::string> recordings;  // paths, in the order in which they were begun
  std::vector<std::string> complaints;  // why processes are not recorded: a sentence; empty: said already
};

absl::StatusOr<LaunchResult> Launch(const LaunchOptions& options);

// The shim that belongs to this binary: beside it (build tree) or in ../lib/nodeleak (installed). Absolute.
absl::StatusOr<std::string> FindShim();

// Ends this process by the signal that ended the command, so that our caller sees what it would have seen without us.
// No core file of ours. Returns only where the signal does not end a process.
void EndBySignal(int signal);

// Whether the file is the recording of another process. False also when it is none or cannot be read.
bool IsOfAnotherProcess(const std::string& recording, pid_t pid);

// How the command ended, written into its own recording (the process itself cannot know that it was killed). Only into
// a file that is a recording of this very process. False: it was not.
bool WriteEnd(const std::string& recording, pid_t pid, int exit_code, int end_signal);

}  // namespace nodeleak::tracer
