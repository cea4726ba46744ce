#include "symbolizer/symbolizer.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "symbolizer/debug_file.h"
#include "symbolizer/debug_info.h"
#include "symbolizer/elf_file.h"
#include "symbolizer/names.h"
#include "symbolizer/symbol_table.h"

namespace nodeleak::symbolizer {
namespace {

// What the kernel appends in /proc/PID/maps to the path of a file without a name.
constexpr std::string_view kDeletedMark = " (deleted)";

class Module {
 public:
  static std::unique_ptr<Module> Open(const ModuleRef& ref, const SymbolizerOptions& options);
  absl::StatusOr<std::vector<SymbolFrame>> Symbolize(uint64_t return_address);
  const ModuleInfo& info() const { return info_; }

 private:
  absl::Status Verify(const ModuleRef& ref, bool deleted);
  void ReadSymbols(const ModuleRef& ref, const SymbolizerOptions& options);
  std::vector<SymbolFrame> Resolve(uint64_t return_address);

  std::unique_ptr<ElfFile> file_;
  std::unique_ptr<ElfFile> debug_file_;
  SymbolTable symbols_;               // refers to the files
  std::unique_ptr<DebugInfo> lines_;  // likewise
  ModuleInfo info_;
  std::string missing_;  // why functions without a name have none; "" when the symbol table is whole
  absl::flat_hash_map<uint64_t, std::vector<SymbolFrame>> answers_;
};

std::unique_ptr<Module> Module::Open(const ModuleRef& ref, const SymbolizerOptions& options) {
  auto module = std::make_unique<Module>();
  std::string path = ref.path;
  const bool deleted = path.ends_with(kDeletedMark);
  if (deleted) path.resize(path.size() - kDeletedMark.size());
  absl::StatusOr<std::unique_ptr<ElfFile>> file = ElfFile::Open(path, ref.root);
  if (!file.ok()) {
    module->info_.why = std::string(file.status().message());
    return module;
  }
  module->file_ = *std::move(file);
  if (absl::Status verified = module->Verify(ref, deleted); !verified.ok()) {
    module->info_.why = std::string(verified.message());
    return module;
  }
  module->ReadSymbols(ref, options);
  return module;
}

absl::Status Module::Verify(const ModuleRef& ref, bool deleted) {
  const std::string& path = file_->path();
  if (!ref.build_id.empty() && !file_->build_id().empty()) {
    if (ref.build_id != file_->build_id()) {
      return absl::FailedPreconditionError(absl::StrCat("file changed since: build id differs: ", path));
    }
    info_.state = ModuleState::kVerified;
    return absl::OkStatus();
  }
  if (!ref.build_id.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("file changed since: it has no build id any more: ", path));
  }
  if (deleted) return absl::NotFoundError(absl::StrCat("file is gone: ", path));
  info_.state = ModuleState::kUnverified;
  info_.why = absl::StrCat("no build id was recorded: names are those of the file as it is now: ", path);
  return absl::OkStatus();
}

void Module::ReadSymbols(const ModuleRef& ref, const SymbolizerOptions& options) {
  bool full_table = symbols_.Add(file_->elf(), SHT_SYMTAB) > 0;
  const bool own_lines = file_->HasSection(".debug_info");
  if (!full_table || (options.lines && !own_lines)) {
    debug_file_ = FindDebugFile(*file_, ref.root, options.debug_directories);
  }
  if (debug_file_ != nullptr) {
    info_.debug_file = debug_file_->path();
    if (!full_table) full_table = symbols_.Add(debug_file_->elf(), SHT_SYMTAB) > 0;
  }
  if (!full_table) {
    symbols_.Add(file_->elf(), SHT_DYNSYM);
    // The compressed table leaves out what .dynsym has.
    full_table = AddMiniDebugSymbols(*file_, symbols_) > 0;
  }
  symbols_.Order();
  if (options.lines) {
    if (own_lines) lines_ = DebugInfo::Open(file_->elf());
    if (lines_ == nullptr && debug_file_ != nullptr) lines_ = DebugInfo::Open(debug_file_->elf());
  }
  info_.has_symbols = full_table;
  info_.has_lines = lines_ != nullptr;
  if (full_table) return;
  missing_ = symbols_.empty() ? absl::StrCat("no symbol table: ", file_->path())
                              : absl::StrCat("stripped, exported functions only: ", file_->path());
  absl::StrAppend(&info_.why, info_.why.empty() ? "" : "; ", missing_);
}

std::vector<SymbolFrame> Module::Resolve(uint64_t return_address) {
  // A return address points after the call: step back one byte, or the line is the next statement's and a call at the
  // very end of a function (to one that does not return) belongs to the next function.
  const uint64_t address = return_address - 1;
  std::optional<Symbol> symbol = symbols_.Find(address);
  std::vector<SourceFrame> sources;
  if (lines_ != nullptr) sources = lines_->Find(address);
  if (sources.empty() && symbol) sources.emplace_back();

  std::vector<SymbolFrame> frames;
  for (SourceFrame& source : sources) {
    SymbolFrame& frame = frames.emplace_back();
    frame.inlined = source.inlined;
    frame.linkage_name = std::move(source.linkage_name);
    if (!source.inlined && symbol) {
      frame.linkage_name = symbol->name;  // also tells clones (.cold, .isra.0)
      frame.offset = return_address - symbol->start;
    }
    frame.function = frame.linkage_name.empty() ? source.name : Demangle(frame.linkage_name);
    // C, and C++ local to a file where the symbol table is stripped.
    if (frame.function.empty()) frame.function = source.name;
    frame.file = std::move(source.file);
    frame.line = source.line;
    frame.column = source.column;
  }
  return frames;
}

absl::StatusOr<std::vector<SymbolFrame>> Module::Symbolize(uint64_t return_address) {
  if (info_.state == ModuleState::kRefused) return absl::FailedPreconditionError(info_.why);
  if (return_address == 0) return absl::NotFoundError("address 0 is no code");
  auto [found, inserted] = answers_.try_emplace(return_address);
  if (inserted) found->second = Resolve(return_address);
  if (!found->second.empty()) return found->second;
  if (!missing_.empty()) return absl::NotFoundError(missing_);
  return absl::NotFoundError(absl::StrCat("no function covers 0x", absl::Hex(return_address), " in ", file_->path()));
}

std::string KeyOf(const ModuleRef& ref) {
  // NUL ends a path, so no two modules have the same key.
  std::string key = ref.root + '\0' + ref.path + '\0';
  key.append(ref.build_id.begin(), ref.build_id.end());
  return key;
}

}  // namespace

struct Symbolizer::Impl {
  Module& Get(const ModuleRef& ref) {
    std::unique_ptr<Module>& module = modules[KeyOf(ref)];
    if (module == nullptr) module = Module::Open(ref, options);
    return *module;
  }

  SymbolizerOptions options;
  absl::flat_hash_map<std::string, std::unique_ptr<Module>> modules;
};

Symbolizer::Symbolizer(SymbolizerOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
}
Symbolizer::~Symbolizer() = default;
Symbolizer::Symbolizer(Symbolizer&&) noexcept = default;
Symbolizer& Symbolizer::operator=(Symbolizer&&) noexcept = default;

absl::StatusOr<std::vector<SymbolFrame>> Symbolizer::Symbolize(const ModuleRef& module, uint64_t return_address) {
  return impl_->Get(module).Symbolize(return_address);
}

std::vector<absl::StatusOr<std::vector<SymbolFrame>>> Symbolizer::SymbolizeBatch(
    const ModuleRef& module, absl::Span<const uint64_t> return_addresses) {
  Module& opened = impl_->Get(module);
  std::vector<absl::StatusOr<std::vector<SymbolFrame>>> answers;
  answers.reserve(return_addresses.size());
  for (uint64_t address : return_addresses) answers.push_back(opened.Symbolize(address));
  return answers;
}

const ModuleInfo& Symbolizer::Describe(const ModuleRef& module) { return impl_->Get(module).info(); }

}  // namespace nodeleak::symbolizer
