#include "tracer/remote_unwind.h"

#include <elf.h>
#include <libunwind.h>
#include <stddef.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

// Exported by libunwind-x86_64.so, declared in its internal headers only (libunwind 1.6, include/dwarf.h): searches a
// binary search table that is read through the accessors.
extern "C" int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t space, unw_word_t ip, unw_dyn_info_t* table,
                                                  unw_proc_info_t* info, int need_unwind_info, void* argument);

namespace nodeleak::tracer {
namespace {

constexpr int kMaxFrames = 128;
constexpr uint64_t kPageBytes = 4096;

struct SearchTable {
  uint64_t header, first, count;  // .eh_frame_hdr, its entries of 8 bytes
};

// As all linkers write it: everything in 4 bytes, the entries relative to the header.
std::optional<SearchTable> ReadSearchTable(const RemoteMemory& memory, const RemoteRange& segment) {
  struct Header {
    uint8_t version, frame_encoding, count_encoding, table_encoding;
    int32_t frame;
    uint32_t count;
  } header;
  constexpr uint8_t kVersion = 1, kUnsigned4 = 0x03, kRelative4 = 0x3b;
  if (segment.bytes() < sizeof header || !memory.TryRead(segment.start, &header, sizeof header)) return std::nullopt;
  if (header.version != kVersion || header.count_encoding != kUnsigned4 || header.table_encoding != kRelative4)
    return std::nullopt;
  constexpr uint64_t kEntryBytes = 8;
  const uint64_t room = (segment.bytes() - sizeof header) / kEntryBytes;
  return SearchTable{ToNumber(segment.start), ToNumber(segment.start) + sizeof header,
                     std::min<uint64_t>(header.count, room)};
}

// One walk: the thread's registers, and the pages that were read.
class Walk {
 public:
  Walk(const RemoteMemory& memory, const RemoteObjects& objects, const user_regs_struct& registers)
      : memory_(memory), objects_(objects), registers_(registers) {}

  bool ReadWord(uint64_t address, uint64_t* word) {
    for (size_t i = 0; i < sizeof *word;) {
      const uint64_t at = address + i, offset = at % kPageBytes;
      const auto* page = Page(at - offset);
      if (page == nullptr) return false;
      const size_t bytes = std::min<size_t>(sizeof *word - i, kPageBytes - offset);
      memcpy(reinterpret_cast<char*>(word) + i, page->data() + offset, bytes);
      i += bytes;
    }
    return true;
  }

  bool ReadRegister(unw_regnum_t number, uint64_t* value) const {
    const struct {
      unw_regnum_t number;
      uint64_t value;
    } rows[] = {{UNW_X86_64_RAX, registers_.rax}, {UNW_X86_64_RDX, registers_.rdx}, {UNW_X86_64_RCX, registers_.rcx},
                {UNW_X86_64_RBX, registers_.rbx}, {UNW_X86_64_RSI, registers_.rsi}, {UNW_X86_64_RDI, registers_.rdi},
                {UNW_X86_64_RBP, registers_.rbp}, {UNW_X86_64_RSP, registers_.rsp}, {UNW_X86_64_R8, registers_.r8},
                {UNW_X86_64_R9, registers_.r9},   {UNW_X86_64_R10, registers_.r10}, {UNW_X86_64_R11, registers_.r11},
                {UNW_X86_64_R12, registers_.r12}, {UNW_X86_64_R13, registers_.r13}, {UNW_X86_64_R14, registers_.r14},
                {UNW_X86_64_R15, registers_.r15}, {UNW_X86_64_RIP, registers_.rip}};
    for (const auto& row : rows) {
      if (row.number != number) continue;
      *value = row.value;
      return true;
    }
    return false;
  }

  int FindRules(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* info, int need) {
    for (const RemoteObject& object : objects_.all()) {
      if (!object.range.Contains(ip)) continue;
      for (const Elf64_Phdr& segment : object.segments) {
        if (segment.p_type != PT_GNU_EH_FRAME) continue;
        const std::optional<SearchTable> table = ReadSearchTable(memory_, object.Segment(segment));
        if (!table.has_value()) continue;
        unw_dyn_info_t dynamic;
        memset(&dynamic, 0, sizeof dynamic);
        dynamic.format = UNW_INFO_FORMAT_REMOTE_TABLE;
        dynamic.start_ip = ToNumber(object.range.start);
        dynamic.end_ip = ToNumber(object.range.end);
        dynamic.u.rti.segbase = table->header;
        dynamic.u.rti.table_data = table->first;
        dynamic.u.rti.table_len = table->count;  // in words
        return _Ux86_64_dwarf_search_unwind_table(space, ip, &dynamic, info, need, this);
      }
    }
    return -UNW_ENOINFO;
  }

 private:
  using PageBytes = std::array<char, kPageBytes>;
  const PageBytes* Page(uint64_t address) {
    const auto known = pages_.find(address);
    if (known != pages_.end()) return &known->second;
    PageBytes bytes;
    if (!memory_.TryRead(static_cast<RemoteAddress>(address), bytes.data(), bytes.size())) return nullptr;
    return &pages_.emplace(address, bytes).first->second;
  }

  const RemoteMemory& memory_;
  const RemoteObjects& objects_;
  const user_regs_struct& registers_;
  std::map<uint64_t, PageBytes> pages_;
};

Walk* WalkOf(void* argument) { return static_cast<Walk*>(argument); }

int FindProcInfo(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* info, int need, void* argument) {
  return WalkOf(argument)->FindRules(space, ip, info, need);
}
void PutUnwindInfo(unw_addr_space_t, unw_proc_info_t*, void*) {}
int NoDynamicInfo(unw_addr_space_t, unw_word_t*, void*) { return -UNW_ENOINFO; }
int AccessMemory(unw_addr_space_t, unw_word_t address, unw_word_t* value, int write, void* argument) {
  return write == 0 && WalkOf(argument)->ReadWord(address, value) ? 0 : -UNW_EINVAL;
}
int AccessRegister(unw_addr_space_t, unw_regnum_t number, unw_word_t* value, int write, void* argument) {
  return write == 0 && WalkOf(argument)->ReadRegister(number, value) ? 0 : -UNW_EBADREG;
}
int NoFpRegister(unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) { return -UNW_EINVAL; }
int NoResume(unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; }
int NoName(unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) { return -UNW_EINVAL; }

}  // namespace

std::vector<RemoteFrame> UnwindStack(const RemoteMemory& memory, const RemoteObjects& objects,
                                     const user_regs_struct& registers) {
  static unw_accessors_t accessors = {FindProcInfo,   PutUnwindInfo, NoDynamicInfo, AccessMemory,
                                      AccessRegister, NoFpRegister,  NoResume,      NoName};
  static const unw_addr_space_t space = unw_create_addr_space(&accessors, 0);
  unw_set_caching_policy(space, UNW_CACHE_NONE);  // libraries come and go, and so do processes
  std::vector<RemoteFrame> frames;
  Walk walk(memory, objects, registers);
  unw_cursor_t cursor;
  if (unw_init_remote(&cursor, space, &walk) != 0) return frames;
  int step = 1;
  while (step > 0 && frames.size() < kMaxFrames) {
    unw_word_t pc = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &pc);
    unw_proc_info_t info;
    frames.push_back({pc, unw_get_proc_info(&cursor, &info) == 0 ? info.start_ip : 0});
    step = unw_step(&cursor);
  }
  return frames;
}

}  // namespace nodeleak::tracer
