// Runs inside node, on any thread, possibly inside malloc. Never allocates through a hooked allocator, never throws.
//
// Which ELF files are mapped, from /proc/thread-self/maps and the ELF headers in memory: the loader's lock is never
// taken, so a thread that sits in dlopen cannot hold us up. Files mapped a second time (V8 remaps node's builtins) are
// not modules.
#pragma once

#include <stdint.h>

namespace nodeleak::preload {

struct ModuleInfo {
  uint64_t start, end;            // all segments
  uint64_t text_start, text_end;  // from the first executable segment to the end of the last
  uint64_t bias;
  uint64_t eh_frame_hdr;  // address; 0: none
  uint64_t unwind_table;  // its binary search table; 0: none in the usual form
  uint64_t unwind_table_bytes;
  uint8_t build_id[20];
  uint32_t build_id_bytes;
  uint32_t recording_index;  // Module in the recording
  uint32_t path_hash;
  bool loaded;
  bool is_executable;
};

// Told about every module found (sets recording_index), every one that went, and every one that is back: the same file
// at the same place. Called with the table's lock held.
struct ModuleObservers {
  uint32_t (*added)(const ModuleInfo& module, const char* path);
  void (*gone)(uint32_t recording_index);
  void (*back)(uint32_t recording_index);
};
void SetModuleObservers(const ModuleObservers& observers);

// Reads the maps again. Returns true when a module went away: what is cached by pc must be dropped. False too when the
// lock was busy.
bool RefreshModules();

// Starts over, with nobody looking: the next RefreshModules tells the observers of all modules again.
void ForgetModules();

// The module whose text contains pc; nullptr: none known. Lock-free; entries are never moved or freed.
const ModuleInfo* FindModule(uint64_t pc);
// The shim's own text.
bool InShim(uint64_t pc);

}  // namespace nodeleak::preload
