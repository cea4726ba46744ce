#include "report/waterfall.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/text_layout.h"

namespace nodeleak::report {
namespace {

using recording::MemoryArena;
using recording::MemoryPart;
using recording::MemoryUse;
using recording::PictureInfo;
using recording::PictureMoment;
using recording::Recording;

constexpr const char* kMoments[] = {"", "end", "peak", "rss-limit", "now"};
static_assert(std::size(kMoments) == static_cast<size_t>(PictureMoment::kCount));

// Parts of a picture that are a line as they are.
struct PartRow {
  MemoryPart part;
  const char* name;
  const char* detail;
};
constexpr PartRow kParts[] = {
    {MemoryPart::kBlockOverhead, "malloc: headers", "of outstanding blocks, and rounding"},
    {MemoryPart::kThreadStacks, "thread stacks", ""},
    {MemoryPart::kFiles, "program and files", "code and data, mapped files"},
    {MemoryPart::kShared, "shared memory", ""},
    {MemoryPart::kNodeleak, "nodeleak", "the recording and our own tables"},
};

struct Owned {
  uint64_t bytes = 0, touched = 0, reserved = 0, count = 0;
};

// Which line a use belongs to: its kind, and of addons, their libraries and mappings whose.
class LineNames {
 public:
  explicit LineNames(const std::vector<ClassifiedUse>& uses) {
    for (const ClassifiedUse& use : uses) {
      const bool mapping = use.use->source == Source::kMapping;
      names_.try_emplace({use.use->stack, mapping}, NameOf(use));
    }
  }
  const std::string& Of(const MemoryUse& use) const {
    const bool mapping = (use.flags & recording::kUseMapping) != 0;
    auto found = names_.find({use.stack, mapping});
    // A stack that has both blocks and mappings is known by one of them.
    if (found == names_.end()) found = names_.find({use.stack, !mapping});
    return found == names_.end() ? unknown_ : found->second;
  }

 private:
  static std::string NameOf(const ClassifiedUse& use) {
    if (use.kind == Kind::kV8Heap) return kJsHeapLine;
    std::string name = KindName(use.kind);
    const bool may_be_of_package = use.kind == Kind::kAddon || use.kind == Kind::kMapping || use.kind == Kind::kNative;
    if (may_be_of_package && use.origin.has_value() && !use.origin->package.empty())
      absl::StrAppend(&name, " ", use.origin->package);
    return name;
  }
  absl::flat_hash_map<std::pair<uint32_t, bool>, std::string> names_;
  std::string unknown_ = KindName(Kind::kNative);
};

std::vector<MemoryLine> SpacesOf(const Recording& recording) {
  std::map<std::string, MemoryLine> by_name;
  for (const recording::HeapSpaceInfo& space : recording.spaces) {
    if (space.isolate >= recording.isolates.size() || recording.isolates[space.isolate].disposed_ns != 0) continue;
    MemoryLine& line = by_name[std::string(space.name)];
    line.bytes += space.size;
    line.touched_bytes = line.touched_bytes.value_or(0) + space.physical;
  }
  std::vector<MemoryLine> spaces;
  for (auto& [name, line] : by_name) {
    line.name = name;
    if (line.bytes != 0) spaces.push_back(std::move(line));
  }
  std::stable_sort(spaces.begin(), spaces.end(), [](const MemoryLine& left, const MemoryLine& right) {
    return *left.touched_bytes > *right.touched_bytes;
  });
  return spaces;
}

// "old_space 12.1 MiB, code_space 2.3 MiB"
std::string ListSpaces(const std::vector<MemoryLine>& spaces) {
  constexpr size_t kMost = 3;
  std::vector<std::string> texts;
  for (const MemoryLine& space : spaces) {
    if (texts.size() < kMost) texts.push_back(absl::StrCat(space.name, " ", FormatBytes(*space.touched_bytes)));
  }
  return absl::StrJoin(texts, ", ");
}

// Why blocks are in use that are not in the recording, other than for their age.
enum class Missing : uint8_t { kNothing, kNotSampled, kLost };
Missing MissingBlocks(const Recording& recording) {
  using recording::LossId;
  constexpr uint64_t kWorthSaying = 1u << 20;
  constexpr LossId kOfBlocks[] = {LossId::kBlocksTableFull, LossId::kLockTimeout, LossId::kReentry, LossId::kEarly,
                                  LossId::kFrozenWhileRunning};
  if (recording.process.sample_bytes != 0 || (recording.process.flags & recording::kSampleAutomatic) != 0)
    return Missing::kNotSampled;
  uint64_t lost = 0;
  for (const LossId id : kOfBlocks) lost += recording.losses[static_cast<size_t>(id)].bytes;
  return lost >= kWorthSaying ? Missing::kLost : Missing::kNothing;
}

uint64_t HeapByStatistics(const Recording& recording) {
  uint64_t bytes = 0;
  for (const recording::Isolate& isolate : recording.isolates) {
    if (isolate.disposed_ns == 0) bytes += isolate.heap_physical;
  }
  return bytes;
}

std::string ArenaName(const MemoryArena& arena) {
  if ((arena.flags & recording::kArenaMappedBlocks) != 0) return "mappings of the allocator";
  return (arena.flags & recording::kArenaMain) != 0 ? "main arena" : "thread arena";
}

std::string DescribeArena(const MemoryArena& arena) {
  if ((arena.flags & recording::kArenaWalked) == 0) return "its free blocks could not be read";
  return absl::StrCat(Plural(arena.free_chunks, "free run"), ", largest ", FormatBytes(arena.largest_free_bytes), ", ",
                      FormatBytes(arena.top_bytes), " at its end");
}

// The resident part of an arena that is free. Without the blocks from before the recording, what glibc itself has in
// use is the better number.
uint64_t FreeOf(const MemoryArena& arena, bool recorded_all) {
  const bool walked = (arena.flags & recording::kArenaWalked) != 0;
  if (!recorded_all && !walked) return 0;  // what is free and what is older cannot be told apart
  const uint64_t used = recorded_all ? arena.block_bytes : std::max(arena.block_bytes, arena.in_use_bytes);
  return arena.resident - std::min(arena.resident, used);
}

class Waterfall {
 public:
  Waterfall(const Recording& recording, const PictureInfo& picture)
      : recording_(recording), picture_(picture), missing_(MissingBlocks(recording)) {}

  Memory Describe(const std::vector<ClassifiedUse>& uses) {
    memory_.at = kMoments[picture_.picture.moment];
    memory_.t_seconds = static_cast<double>(picture_.picture.time_ns) / 1e9;
    memory_.rss_bytes = picture_.picture.rss_bytes;
    memory_.limit_bytes = picture_.picture.limit_bytes;
    memory_.limit_used_bytes = picture_.picture.limit_used_bytes;
    memory_.limit_throttles = (picture_.picture.flags & recording::kPictureLimitThrottles) != 0;
    AddOwners(uses);
    AddFree();
    for (const PartRow& row : kParts) {
      const recording::MemoryAmount& amount = picture_.part(row.part);
      AddLine({row.name, amount.mapped, amount.resident, row.detail});
    }
    AddHeapByStatistics();
    if (picture_.unrecorded) {
      AddLine({"anonymous mappings", unexplained_, unexplained_,
               "JavaScript heap, large blocks, memory of an allocator that is not libc's"});
      unexplained_ = 0;
    }
    AddOlder();
    std::stable_sort(memory_.lines.begin(), memory_.lines.end(), [](const MemoryLine& left, const MemoryLine& right) {
      return left.touched_bytes.value_or(0) > right.touched_bytes.value_or(0);
    });
    // Shown also when it is nothing.
    memory_.lines.push_back({kUnexplainedLine, unexplained_, unexplained_, ""});
    AddBesides();
    AddNotes();
    Advise(picture_.arenas, !OtherAllocator(), &memory_);
    return std::move(memory_);
  }

 private:
  bool OtherAllocator() const { return (picture_.picture.flags & recording::kPictureOtherAllocator) != 0; }
  bool FromTheStart() const { return (picture_.picture.flags & recording::kPictureRecordedAll) != 0; }
  bool RecordedAll() const { return FromTheStart() && missing_ == Missing::kNothing; }
  // V8 tells of its spaces at the last safe point: that is the end, or now.
  bool HasSpaces() const {
    return picture_.moment() == PictureMoment::kEnd || picture_.moment() == PictureMoment::kNow;
  }

  void AddLine(MemoryLine line) {
    if (line.bytes != 0 || line.touched_bytes.value_or(0) != 0) memory_.lines.push_back(std::move(line));
  }

  void AddOwners(const std::vector<ClassifiedUse>& uses) {
    const LineNames names(uses);
    std::map<std::string, Owned> by_name;
    uint64_t touched = 0;
    for (const MemoryUse& use : picture_.uses) {
      Owned& owned = by_name[names.Of(use)];
      owned.bytes += use.bytes;
      owned.touched += use.resident;
      owned.reserved += use.reserved;
      owned.count += use.count;
      touched += use.resident;
    }
    for (const auto& [name, owned] : by_name) {
      reserved_ += owned.reserved;
      const bool is_heap = name == kJsHeapLine;
      MemoryLine line = {name, owned.bytes, owned.touched, ""};
      if (is_heap && HasSpaces()) line.parts = SpacesOf(recording_);
      if (is_heap) {
        line.detail = ListSpaces(line.parts);
      } else if (owned.reserved != 0) {
        line.detail = absl::StrCat(FormatBytes(owned.reserved), " more reserved");
      }
      AddLine(std::move(line));
    }
    // A picture that was cut has resident memory whose owners are not listed.
    const uint64_t known = picture_.part(MemoryPart::kBlocks).resident + picture_.part(MemoryPart::kMappings).resident;
    unexplained_ = picture_.part(MemoryPart::kUnexplained).resident + (known - std::min(known, touched));
  }

  void AddFree() {
    MemoryLine free = {kFreeLine, 0, 0, ""};
    const uint64_t total = picture_.part(MemoryPart::kMallocFree).resident;
    for (const MemoryArena& arena : picture_.arenas) {
      const uint64_t bytes = FreeOf(arena, RecordedAll());
      free.bytes += bytes;
      free.parts.push_back({ArenaName(arena), arena.mapped, bytes, DescribeArena(arena)});
    }
    free.bytes = std::min(free.bytes, total);
    const uint64_t in_use = total - free.bytes;
    if (OtherAllocator() && RecordedAll()) AddEmptyAreas(&free);
    std::stable_sort(free.parts.begin(), free.parts.end(), [](const MemoryLine& left, const MemoryLine& right) {
      return *left.touched_bytes > *right.touched_bytes;
    });
    free.touched_bytes = free.bytes;
    if (OtherAllocator()) {
      free.detail = "malloc is not libc's: its own memory is not looked into";
    } else if (!free.parts.empty()) {
      free.detail = absl::StrCat(
          free.parts.size() == 1 ? free.parts[0].name : absl::StrCat(free.parts.size(), " arenas, the first"), ": ",
          free.parts[0].detail);
    }
    AddLine(free);
    AddUnknownInUse(in_use);
  }

  // What nobody has mapped, for a line that explains it.
  uint64_t TakeUnexplained() {
    const uint64_t bytes = picture_.part(MemoryPart::kUnexplained).resident;
    unexplained_ -= bytes;
    return bytes;
  }

  // Of an allocator that is not libc's we know only the areas where blocks lie. What else nobody has mapped is its own,
  // too, as far as can be told: it keeps areas whose blocks are all free.
  void AddEmptyAreas(MemoryLine* free) {
    const uint64_t empty = TakeUnexplained();
    if (empty == 0) return;
    free->bytes += empty;
    free->parts.push_back({"likely", empty, empty, "memory without a block in it that nobody else has mapped"});
  }

  // Blocks in use that the recording does not have.
  void AddUnknownInUse(uint64_t bytes) {
    const bool unread = std::any_of(picture_.arenas.begin(), picture_.arenas.end(), [](const MemoryArena& arena) {
      return (arena.flags & recording::kArenaWalked) == 0;
    });
    if (picture_.unrecorded) return AddLine({"malloc: in use", bytes, bytes, "blocks up to 128 KiB, mostly"});
    const char* or_free = unread ? ", or free: that could not be read" : "";
    if (!FromTheStart() || missing_ == Missing::kNothing)
      return AddLine({"malloc: older blocks", bytes, bytes,
                      unread ? absl::StrCat("not recorded", or_free) : "allocated before the recording"});
    // Large ones have mappings of their own, which belong to nobody else.
    const uint64_t mapped = TakeUnexplained();
    AddLine({"malloc: not recorded", bytes + mapped, bytes + mapped,
             absl::StrCat(missing_ == Missing::kNotSampled ? "blocks that were not sampled: see the groups' estimates"
                                                           : "blocks that the recording lost",
                          or_free)});
  }

  // Pages that V8 had mapped before we watched have no owner; it counts them itself.
  void AddHeapByStatistics() {
    if (FromTheStart() || !HasSpaces()) return;
    const uint64_t heap = std::min(HeapByStatistics(recording_), unexplained_);
    for (const MemoryLine& line : memory_.lines) {
      if (line.name == kJsHeapLine && line.touched_bytes.value_or(0) > heap / 2) return;
    }
    unexplained_ -= heap;
    AddLine({absl::StrCat(kJsHeapLine, ", older"), heap, heap, "V8's own count: mapped before the recording began",
             SpacesOf(recording_)});
  }

  // Of a process that was attached to: what nobody owns was there before, or came past the hooks. Whose it is cannot be
  // told, but V8's own counter says how much of it may be ArrayBuffers.
  void AddOlder() {
    const bool whole = !picture_.unrecorded && (picture_.picture.flags & recording::kPictureCut) == 0;
    if ((recording_.process.flags & recording::kIsAttached) == 0 || !whole) return;
    uint64_t external = 0, recorded = 0;
    for (const recording::Isolate& isolate : recording_.isolates)
      if (isolate.disposed_ns == 0) external += isolate.external;
    for (const MemoryLine& line : memory_.lines)
      if (line.name == KindName(Kind::kArrayBuffer)) recorded = line.bytes;
    std::string detail = "mapped before nodeleak attached, not recorded";
    if (HasSpaces() && external > recorded)
      absl::StrAppend(&detail, "; ArrayBuffers and the like by V8's own count: ", FormatBytes(external - recorded));
    AddLine({"older mappings", unexplained_, unexplained_, std::move(detail)});
    unexplained_ = 0;
  }

  void AddBesides() {
    AddLine({"reserved", reserved_, 0, "address space, not memory"});
    AddLine({"page tables", picture_.picture.page_table_bytes, 0, "the kernel's, not in the RSS"});
    AddLine({"swapped out", picture_.picture.swapped_bytes, 0, "not in the RSS"});
  }

  void AddNotes() {
    const uint32_t flags = picture_.picture.flags;
    if ((flags & recording::kPictureApproximate) != 0)
      memory_.notes.push_back("which pages are in memory could not be read (pagemap): touched parts are estimated");
    if ((flags & recording::kPictureCut) != 0)
      memory_.notes.push_back("the memory picture is not whole (no time, or no room in the recording)");
    if (picture_.unrecorded)
      memory_.notes.push_back("this process is not recorded: whose the memory in use is cannot be told");
  }

  const Recording& recording_;
  const PictureInfo& picture_;
  Memory memory_;
  const Missing missing_;
  uint64_t reserved_ = 0, unexplained_ = 0;
};

}  // namespace

Memory DescribePicture(const Recording& recording, const PictureInfo& picture, const std::vector<ClassifiedUse>& uses) {
  return Waterfall(recording, picture).Describe(uses);
}

void AddPictures(const Recording& recording, const std::vector<ClassifiedUse>& uses, Report* report) {
  std::vector<const PictureInfo*> pictures;
  for (const PictureInfo& picture : recording.pictures) pictures.push_back(&picture);
  // That of now was taken after everything that is in the recording; its time is the recorder's last sample.
  const auto order = [](const PictureInfo* picture) {
    return std::pair(picture->moment() == PictureMoment::kNow, picture->picture.time_ns);
  };
  std::stable_sort(pictures.begin(), pictures.end(),
                   [&](const PictureInfo* left, const PictureInfo* right) { return order(left) > order(right); });
  for (const PictureInfo* picture : pictures) {
    Memory memory = DescribePicture(recording, *picture, uses);
    if (picture == pictures.front()) {
      report->memory = std::move(memory);
    } else {
      report->other_memory.push_back(std::move(memory));
    }
  }
}

}  // namespace nodeleak::report
