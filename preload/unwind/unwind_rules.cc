#include "preload/unwind/unwind_rules.h"

#include <libunwind.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "preload/base/safe_read.h"
#include "preload/base/system.h"
#include "preload/unwind/call_frames.h"
#include "preload/unwind/modules.h"

// Exported by libunwind-x86_64.so, declared in its internal headers only (libunwind 1.6, include/dwarf.h): searches a
// binary search table as dl_iterate_phdr would have found it, without asking the loader.
extern "C" int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t space, unw_word_t ip, unw_dyn_info_t* table,
                                                  unw_proc_info_t* info, int need_unwind_info, void* argument);

namespace nodeleak::preload {
namespace {

// The synthetic registers: far from each other and from anything mapped (the upper part of the user half is empty on
// x86-64 Linux with 47 bits only in theory, so reads there are answered without touching memory).
constexpr uint64_t kSyntheticSp = 0x100000000000ull;
constexpr uint64_t kSyntheticBp = 0x200000000000ull;
constexpr uint64_t kSyntheticReach = 1ull << 30;

struct StepState {
  uint64_t pc;
  uint64_t sp;
  uint64_t bp;
  bool synthetic;
  const ModuleInfo* module;  // of pc; its unwind tables are read directly
};

unw_addr_space_t g_space;

// libunwind's first use opens a pipe to test addresses with (x86_64/Ginit.c, tdep_init_mem_validate, v1.6.2). Our
// accessors never ask for that test. Left open, the pipe takes the program's lowest two descriptors, and were it used
// after the program had closed everything, bytes would go into the program's own files. We are alone at that time.
class UnwantedPipe {
 public:
  UnwantedPipe() {
    for (long& fd : expected_) fd = RawSyscall(SYS_memfd_create, reinterpret_cast<long>(""), kCloseOnExec);
    for (long fd : expected_) Close(fd);
  }
  ~UnwantedPipe() {
    struct stat ends[2];
    for (int i = 0; i < 2; ++i) {
      if (expected_[i] < 0 || RawSyscall(SYS_fstat, expected_[i], reinterpret_cast<long>(&ends[i])) != 0) return;
    }
    if (!S_ISFIFO(ends[0].st_mode) || ends[0].st_ino != ends[1].st_ino || ends[0].st_dev != ends[1].st_dev) return;
    for (long fd : expected_) Close(fd);
  }
  UnwantedPipe(const UnwantedPipe&) = delete;
  UnwantedPipe& operator=(const UnwantedPipe&) = delete;

 private:
  static constexpr long kCloseOnExec = 1;  // MFD_CLOEXEC
  static void Close(long fd) {
    if (fd >= 0) RawSyscall(SYS_close, fd);
  }
  long expected_[2];  // the lowest free descriptors: those that the pipe will get
};

bool Near(uint64_t address, uint64_t center) { return address - (center - kSyntheticReach) < 2 * kSyntheticReach; }

int FindProcInfo(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* info, int need, void* argument) {
  const ModuleInfo* module = static_cast<StepState*>(argument)->module;
  if (module == nullptr || module->unwind_table == 0) return -UNW_ENOINFO;
  unw_dyn_info_t table;
  memset(&table, 0, sizeof table);
  table.format = UNW_INFO_FORMAT_REMOTE_TABLE;
  table.start_ip = module->text_start;
  table.end_ip = module->text_end;
  table.u.rti.segbase = module->eh_frame_hdr;
  table.u.rti.table_data = module->unwind_table;
  table.u.rti.table_len = module->unwind_table_bytes / sizeof(unw_word_t);
  return _Ux86_64_dwarf_search_unwind_table(space, ip, &table, info, need, argument);
}

void PutUnwindInfo(unw_addr_space_t, unw_proc_info_t*, void*) {}
int NoDynamicInfo(unw_addr_space_t, unw_word_t*, void*) { return -UNW_ENOINFO; }

int AccessMemory(unw_addr_space_t, unw_word_t address, unw_word_t* value, int write, void* argument) {
  if (write != 0) return -UNW_EINVAL;
  const StepState* state = static_cast<StepState*>(argument);
  if (state->synthetic && (Near(address, kSyntheticSp) || Near(address, kSyntheticBp))) {
    *value = address;  // what is stored there does not matter: where it is does
    return 0;
  }
  // Unwind tables of a loaded module, mostly; unaligned words of them.
  if (state->module != nullptr && address >= state->module->start && address + 8 <= state->module->end) {
    memcpy(value, reinterpret_cast<const void*>(address), sizeof *value);
    return 0;
  }
  return SafeRead(address, value, sizeof *value) ? 0 : -UNW_EINVAL;
}

int AccessRegister(unw_addr_space_t, unw_regnum_t number, unw_word_t* value, int write, void* argument) {
  StepState* state = static_cast<StepState*>(argument);
  if (write != 0) return 0;
  switch (number) {
    case UNW_X86_64_RIP:
      *value = state->pc;
      break;
    case UNW_X86_64_RSP:
      *value = state->sp;
      break;
    case UNW_X86_64_RBP:
      *value = state->bp;
      break;
    default:
      *value = 0;
      break;
  }
  return 0;
}

int NoFpRegister(unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) { return -UNW_EINVAL; }
int NoResume(unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; }
int NoName(unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) { return -UNW_EINVAL; }

unw_accessors_t g_accessors = {FindProcInfo,   PutUnwindInfo, NoDynamicInfo, AccessMemory,
                               AccessRegister, NoFpRegister,  NoResume,      NoName};

// A return address points after the call: libunwind steps back by itself except in the innermost frame, which is what
// it believes to be in.
StepState SyntheticState(uint64_t return_address) {
  return {return_address - 1, kSyntheticSp, kSyntheticBp, true, FindModule(return_address - 1)};
}

UnwindRule RuleWithoutUnwindInfo(uint64_t return_address) {
  return UnwindRule::Of(FindModule(return_address - 1) != nullptr ? RuleKind::kFramePointer : RuleKind::kUnknownCode);
}

UnwindRule DeriveRule(uint64_t return_address) {
  const ModuleInfo* module = FindModule(return_address - 1);
  if (module == nullptr) return UnwindRule::Of(RuleKind::kUnknownCode);
  const UnwindRule rule = RuleFromTables(*module, return_address);
  return rule.kind() != RuleKind::kNone ? rule : RuleByStepping(return_address);
}

}  // namespace

bool UnwindRule::Encode(bool from_rbp, int64_t cfa_offset, int64_t rbp_slot, UnwindRule* rule) {
  constexpr int64_t kMaxCfa = 0x3fff * 8;
  constexpr int64_t kMaxSlot = 0x7ff * 8;
  if (cfa_offset < 8 || cfa_offset > kMaxCfa || (cfa_offset & 7) != 0) return false;
  if (rbp_slot < -kMaxSlot || rbp_slot > kMaxSlot || (rbp_slot & 7) != 0) return false;
  *rule = UnwindRule(static_cast<uint32_t>(RuleKind::kFrame) << 27 | (from_rbp ? 1u << 26 : 0u) |
                     static_cast<uint32_t>(cfa_offset / 8) << 12 | (static_cast<uint32_t>(rbp_slot / 8) & 0xfff));
  return true;
}

UnwindRule RuleByStepping(uint64_t return_address) {
  StepState state = SyntheticState(return_address);
  unw_cursor_t cursor;
  unw_proc_info_t info;
  if (unw_init_remote(&cursor, g_space, &state) < 0) return RuleWithoutUnwindInfo(return_address);
  if (unw_get_proc_info(&cursor, &info) < 0 || info.start_ip == 0) return RuleWithoutUnwindInfo(return_address);
  if (unw_is_signal_frame(&cursor) > 0) return UnwindRule::Of(RuleKind::kSignal);
  if (unw_step(&cursor) <= 0) return UnwindRule::Of(RuleKind::kEnd);
  unw_word_t cfa = 0;
  unw_save_loc_t rbp_location;
  if (unw_get_reg(&cursor, UNW_REG_SP, &cfa) < 0 || unw_get_save_loc(&cursor, UNW_X86_64_RBP, &rbp_location) < 0) {
    return UnwindRule::Of(RuleKind::kComplex);
  }
  const bool from_rbp = Near(cfa, kSyntheticBp);
  if (!from_rbp && !Near(cfa, kSyntheticSp)) return UnwindRule::Of(RuleKind::kComplex);
  const int64_t cfa_offset = static_cast<int64_t>(cfa - (from_rbp ? kSyntheticBp : kSyntheticSp));
  const int64_t rbp_slot = rbp_location.type == UNW_SLT_MEMORY ? static_cast<int64_t>(rbp_location.u.addr - cfa) : 0;
  UnwindRule rule;
  if (!UnwindRule::Encode(from_rbp, cfa_offset, rbp_slot, &rule)) return UnwindRule::Of(RuleKind::kComplex);
  return rule;
}

bool RuleCache::Start() {
  if (slots_ == nullptr) {
    slots_ = static_cast<uint64_t*>(MapTouchedMemory(sizeof(uint64_t) << kSlotBits));
  } else {
    Flush();  // an earlier recording's: what was loaded and unloaded since went unseen
  }
  if (g_space == nullptr) {
    UnwantedPipe pipe;
    g_space = unw_create_addr_space(&g_accessors, 0);
    if (g_space != nullptr) unw_set_caching_policy(g_space, UNW_CACHE_NONE);
  }
  return slots_ != nullptr && g_space != nullptr;
}

UnwindRule RuleCache::Derive(uint64_t return_address) {
  const UnwindRule rule = DeriveRule(return_address);
  if (rule.kind() != RuleKind::kUnknownCode) Remember(return_address, rule);  // else a module may turn up there
  return rule;
}

void RuleCache::Remember(uint64_t return_address, UnwindRule rule) {
  const uint64_t mixed = Mix(return_address);
  uint64_t* slot = Home(mixed);
  if (__atomic_load_n(slot, __ATOMIC_RELAXED) != 0) {
    uint64_t* line = LineOf(slot);
    for (uint32_t way = 0; way < 1u << kWayBits; ++way) {
      if (__atomic_load_n(&line[way], __ATOMIC_RELAXED) != 0) continue;
      slot = &line[way];
      break;
    }  // none free: the one at home makes room
  }
  __atomic_store_n(slot, Tag(mixed) << UnwindRule::kBits | rule.bits(), __ATOMIC_RELAXED);
}

void RuleCache::Flush() {
  if (slots_ == nullptr) return;
  for (uint64_t i = 0; i < 1u << kSlotBits; ++i) __atomic_store_n(&slots_[i], 0, __ATOMIC_RELAXED);
}

bool RuleCache::StepForReal(WalkRegisters* registers) {
  StepState state = {registers->pc - 1, registers->sp, registers->fp, false, FindModule(registers->pc - 1)};
  unw_cursor_t cursor;
  if (unw_init_remote(&cursor, g_space, &state) < 0 || unw_step(&cursor) <= 0) return false;
  unw_word_t pc = 0, sp = 0, fp = 0;
  if (unw_get_reg(&cursor, UNW_REG_IP, &pc) < 0 || unw_get_reg(&cursor, UNW_REG_SP, &sp) < 0 ||
      unw_get_reg(&cursor, UNW_X86_64_RBP, &fp) < 0) {
    return false;
  }
  *registers = {pc, sp, fp};
  return true;
}

}  // namespace nodeleak::preload
