#include "tests/support/recording_builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace nodeleak::recording {
namespace {

template <typename T>
uint32_t Append(std::vector<T>* entries, const T& entry) {
  entries->push_back(entry);
  return static_cast<uint32_t>(entries->size() - 1);
}

uint64_t AppendBytes(std::vector<char>* file, const void* bytes, uint64_t count, uint64_t room) {
  const uint64_t offset = (file->size() + 63) / 64 * 64;
  file->resize(offset + room);
  if (count != 0) memcpy(file->data() + offset, bytes, count);
  return offset;
}

template <typename T>
void PutTable(const T* entries, uint64_t count, uint32_t first_entries, TableId id, Header* header,
              std::vector<char>* file) {
  Table& table = header->tables[static_cast<uint32_t>(id)];
  table.entry_bytes = sizeof(T);
  table.first_entries = first_entries;
  table.count = count;
  uint64_t done = 0;
  for (uint32_t k = 0; done < count; ++k) {
    const uint64_t room = static_cast<uint64_t>(first_entries) << k;
    const uint64_t here = std::min(room, count - done);
    table.extents[k] = AppendBytes(file, entries + done, here * sizeof(T), room * sizeof(T));
    done += here;
  }
}

template <typename T>
void PutTable(const std::vector<T>& entries, TableId id, Header* header, std::vector<char>* file) {
  constexpr uint32_t kFirstEntries = 16;  // small: tests reach the second and third extent
  PutTable(entries.data(), entries.size(), kFirstEntries, id, header, file);
}

// Any function will do: nobody but the shim finds blocks by address.
uint64_t Hash(uint64_t address) { return (address >> 4) * 0x9E3779B97F4A7C15ull; }

void PutShards(const std::vector<Block>& blocks, Header* header, std::vector<char>* file) {
  std::array<std::vector<Block>, kShardCount> by_shard;
  for (const Block& block : blocks) by_shard[Hash(block.address) >> 56].push_back(block);
  std::vector<Shard> shards(kShardCount);
  for (uint32_t i = 0; i < kShardCount; ++i) {
    const std::vector<Block>& content = by_shard[i];
    uint32_t capacity = 8;
    while (capacity < content.size() * 2) capacity *= 2;
    std::vector<Block> slots(capacity);
    for (const Block& block : content) {
      uint64_t at = Hash(block.address) & (capacity - 1);
      while (slots[at].address != 0) at = (at + 1) & (capacity - 1);
      slots[at] = block;
    }
    shards[i].sequence = static_cast<uint32_t>(2 * content.size());
    shards[i].capacity = capacity;
    shards[i].count = static_cast<uint32_t>(content.size());
    for (const Block& block : content) shards[i].live_bytes += BlockSize(block);
    shards[i].offset = AppendBytes(file, slots.data(), capacity * sizeof(Block), capacity * sizeof(Block));
  }
  memcpy(file->data() + header->shards_offset, shards.data(), kShardCount * sizeof(Shard));
}

}  // namespace

RecordingBuilder::RecordingBuilder() {
  header_.magic = kMagic;
  header_.version = kFormatVersion;
  header_.header_bytes = sizeof(Header);
  header_.max_file_bytes = 1ull << 30;
  header_.flags = kIsNode;
  header_.state = static_cast<uint32_t>(ProcessState::kRecording);
  header_.pid = 4242;
  header_.ppid = 4241;
  header_.process_start_ticks = 1;  // the first hundredth of a second after boot: never a node
  header_.start_realtime_ns = 1'700'000'000'000'000'000;
  header_.exit_code = -1;
  for (Capability& capability : header_.capabilities) capability.state = static_cast<uint32_t>(CapabilityState::kFull);
  stack_nodes_.push_back({0, kNoIndex});
  stacks_.push_back(Stack{.node = 0, .thread = kNoIndex});
  AddThread("node", ThreadRole::kMain);
}

StringRef RecordingBuilder::Text(absl::string_view text) {
  if (text.empty()) return {0, 0};
  const auto [known, is_new] = known_strings_.try_emplace(std::string(text));
  if (is_new) {
    known->second = {static_cast<uint32_t>(strings_.size()), static_cast<uint32_t>(text.size())};
    strings_.append(text.data(), text.size());
  }
  return known->second;
}

void RecordingBuilder::SetCommand(const std::vector<std::string>& arguments) {
  std::string joined;
  for (const std::string& argument : arguments) joined.append(argument).push_back('\0');
  header_.command = Text(joined);
}

void RecordingBuilder::SetVersions(absl::string_view node, absl::string_view v8) {
  header_.node_version = Text(node);
  header_.v8_version = Text(v8);
}

void RecordingBuilder::SetCapability(CapabilityId id, CapabilityState state, absl::string_view why) {
  header_.capabilities[static_cast<uint32_t>(id)] = {static_cast<uint32_t>(state), 0, Text(why)};
}

void RecordingBuilder::SetLoss(LossId id, uint64_t count, uint64_t bytes) {
  header_.losses[static_cast<uint32_t>(id)] = {count, bytes};
}

void RecordingBuilder::SetExited(int code, uint64_t ns) {
  header_.state = static_cast<uint32_t>(ProcessState::kEnded);
  header_.freeze_reason = static_cast<uint32_t>(FreezeReason::kAtExit);
  header_.gc_at_end = static_cast<uint32_t>(GcAtEnd::kDone);
  header_.exit_code = code;
  header_.frozen_ns = header_.ended_ns = header_.last_alive_ns = ns;
}

uint32_t RecordingBuilder::AddModule(absl::string_view path, uint64_t bias, absl::string_view build_id) {
  Module module = {};
  module.path = Text(path);
  module.build_id_bytes = static_cast<uint32_t>(std::min(build_id.size(), sizeof(module.build_id)));
  memcpy(module.build_id, build_id.data(), module.build_id_bytes);
  module.bias = bias;
  module.start = bias;
  module.end = bias + 0x100000;
  return Append(&modules_, module);
}

uint32_t RecordingBuilder::AddJsFunction(absl::string_view name, absl::string_view file, uint32_t line, uint32_t column,
                                         uint32_t flags) {
  JsFunction function = {};
  function.name = Text(name);
  function.file = Text(file);
  function.line = line;
  function.column = column;
  function.flags = flags;
  return Append(&js_functions_, function);
}

uint32_t RecordingBuilder::AddFrame(const Frame& frame) {
  for (uint32_t i = 0; i < frames_.size() && i < 10'000; ++i) {
    if (memcmp(&frames_[i], &frame, sizeof(frame)) == 0) return i;
  }
  return Append(&frames_, frame);
}

uint32_t RecordingBuilder::AddNativeFrame(uint32_t module, uint64_t address_in_file) {
  return AddFrame({static_cast<uint8_t>(FrameType::kNative), 0, 0, 0, module, address_in_file});
}

uint32_t RecordingBuilder::AddJsFrame(absl::string_view function, absl::string_view file, uint32_t line,
                                      uint32_t column) {
  const StringRef name = Text(function), path = Text(file);
  uint32_t index = 0;
  while (index < js_functions_.size() &&
         (js_functions_[index].name.offset != name.offset || js_functions_[index].name.length != name.length ||
          js_functions_[index].file.offset != path.offset)) {
    ++index;
  }
  if (index == js_functions_.size()) index = AddJsFunction(function, file, 1, 1);
  return AddFrame({static_cast<uint8_t>(FrameType::kJs), 1, 0, 0, index, static_cast<uint64_t>(line) << 32 | column});
}

uint32_t RecordingBuilder::AddMarkerFrame(MarkerId marker) {
  return AddFrame({static_cast<uint8_t>(FrameType::kMarker), 0, 0, 0, kNoIndex, static_cast<uint64_t>(marker)});
}

uint32_t RecordingBuilder::AddStack(const std::vector<uint32_t>& frames, uint32_t thread) {
  uint32_t node = 0;
  for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
    const auto [known, is_new] = known_nodes_.try_emplace({node, *frame});
    if (is_new) known->second = Append(&stack_nodes_, StackNode{node, *frame});
    node = known->second;
  }
  const auto [known, is_new] = known_stacks_.try_emplace({node, thread});
  if (is_new) {
    known->second =
        Append(&stacks_, Stack{.node = node, .thread = thread, .depth = static_cast<uint32_t>(frames.size())});
  }
  return known->second;
}

uint64_t RecordingBuilder::AddBlock(uint64_t size, uint32_t stack, uint32_t birth_tick, uint32_t birth_gc,
                                    uint64_t address) {
  if (address == 0) {
    address = next_address_;
    next_address_ += (size + 31) / 16 * 16;
  }
  blocks_.push_back({address, PackSizeAndGc(size, birth_gc), stack, birth_tick});
  header_.live_bytes += size;
  ++header_.live_blocks;
  if (stack < stacks_.size()) {
    Stack& counters = stacks_[stack];
    if (counters.allocated_blocks == 0) counters.first_tick = birth_tick;
    counters.allocated_bytes += size;
    ++counters.allocated_blocks;
    counters.last_tick = std::max(counters.last_tick, birth_tick);
  }
  return address;
}

void RecordingBuilder::AddBlocks(uint32_t count, uint64_t size, uint32_t stack, uint32_t first_tick,
                                 uint32_t ticks_between, uint32_t birth_gc) {
  for (uint32_t i = 0; i < count; ++i) AddBlock(size, stack, first_tick + i * ticks_between, birth_gc);
}

void RecordingBuilder::AddFreed(uint32_t blocks, uint64_t size, uint32_t stack) {
  stacks_[stack].allocated_blocks += blocks;
  stacks_[stack].allocated_bytes += blocks * size;
  stacks_[stack].freed_blocks += blocks;
  stacks_[stack].freed_bytes += blocks * size;
}

uint32_t RecordingBuilder::AddThread(absl::string_view name, ThreadRole role, uint32_t worker_number,
                                     uint32_t creation_stack) {
  Thread thread = {};
  thread.tid = header_.pid + static_cast<uint32_t>(threads_.size());
  thread.role = static_cast<uint32_t>(role);
  memcpy(thread.name, name.data(), std::min(name.size(), sizeof(thread.name) - 1));
  thread.creation_stack = creation_stack;
  thread.worker_number = worker_number;
  return Append(&threads_, thread);
}

uint32_t RecordingBuilder::AddIsolate(const Isolate& isolate) { return Append(&isolates_, isolate); }

void RecordingBuilder::AddHeapSpace(uint32_t isolate, absl::string_view name, uint64_t size, uint64_t used) {
  spaces_.push_back({isolate, 0, Text(name), size, used, size - used, size});
}

void RecordingBuilder::AddCheckpoint(uint64_t time_ns, uint32_t mark_compacts,
                                     const std::vector<CheckpointEntry>& entries, uint64_t rss_bytes) {
  checkpoints_.push_back(
      {time_ns, mark_compacts, static_cast<uint32_t>(entries.size()), checkpoint_entries_.size(), rss_bytes});
  checkpoint_entries_.insert(checkpoint_entries_.end(), entries.begin(), entries.end());
}

void RecordingBuilder::AddPicture(MemoryPicture picture, const std::vector<MemoryUse>& uses,
                                  const std::vector<MemoryArena>& arenas) {
  picture.first_use = picture_uses_.size();
  picture.use_count = static_cast<uint32_t>(uses.size());
  picture.first_arena = picture_arenas_.size();
  picture.arena_count = static_cast<uint32_t>(arenas.size());
  pictures_.push_back(picture);
  picture_uses_.insert(picture_uses_.end(), uses.begin(), uses.end());
  picture_arenas_.insert(picture_arenas_.end(), arenas.begin(), arenas.end());
}

std::vector<char> RecordingBuilder::Build() const {
  std::vector<char> file(sizeof(Header));
  Header header = header_;
  header.shards_offset = AppendBytes(&file, nullptr, 0, kShardCount * sizeof(Shard));
  PutTable(modules_, TableId::kModules, &header, &file);
  PutTable(strings_.data(), strings_.size(), 256, TableId::kStringBytes, &header, &file);
  PutTable(js_functions_, TableId::kJsFunctions, &header, &file);
  PutTable(frames_, TableId::kFrames, &header, &file);
  PutTable(stack_nodes_, TableId::kStackNodes, &header, &file);
  PutTable(stacks_, TableId::kStacks, &header, &file);
  PutTable(ranges_, TableId::kRanges, &header, &file);
  PutTable(threads_, TableId::kThreads, &header, &file);
  PutTable(isolates_, TableId::kIsolates, &header, &file);
  PutTable(timeline_, TableId::kTimeline, &header, &file);
  PutTable(checkpoints_, TableId::kCheckpoints, &header, &file);
  PutTable(checkpoint_entries_, TableId::kCheckpointEntries, &header, &file);
  PutTable(spaces_, TableId::kSpaces, &header, &file);
  PutTable(older_buffers_, TableId::kOlderBuffers, &header, &file);
  PutTable(buffer_lists_, TableId::kBufferLists, &header, &file);
  PutTable(pictures_, TableId::kMemoryPictures, &header, &file);
  PutTable(picture_uses_, TableId::kMemoryUses, &header, &file);
  PutTable(picture_arenas_, TableId::kMemoryArenas, &header, &file);
  PutShards(blocks_, &header, &file);
  header.file_bytes = file.size();
  memcpy(file.data(), &header, sizeof(header));
  return file;
}

bool RecordingBuilder::WriteTo(const std::string& path) const {
  const std::vector<char> file = Build();
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const bool written = write(fd, file.data(), file.size()) == static_cast<ssize_t>(file.size());
  return close(fd) == 0 && written;
}

}  // namespace nodeleak::recording
