// Outside node. From the frames of a recording to frames a person reads, classified. Native names come from outside, so
// tests can give their own.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "recording/recording.h"
#include "report/classify.h"
#include "symbolizer/symbolizer.h"

namespace nodeleak::report {

struct NativeNames {
  std::function<std::vector<absl::StatusOr<std::vector<symbolizer::SymbolFrame>>>(const symbolizer::ModuleRef&,
                                                                                  absl::Span<const uint64_t>)>
      symbolize;
  std::function<symbolizer::ModuleInfo(const symbolizer::ModuleRef&)> describe;
};

// `symbolizer` must outlive them.
NativeNames NamesFrom(symbolizer::Symbolizer* symbolizer);

// npm package ("name@version") of a file; "" for none. Remembers its answers.
class Packages {
 public:
  explicit Packages(std::string root) : root_(std::move(root)) {}
  const std::string& Of(std::string_view path);

 private:
  std::string root_;
  absl::flat_hash_map<std::string, std::string> label_of_;
};

class FrameTable {
 public:
  // Resolves every frame of the recording at once, or those that are `wanted` (by index; all other stacks must not be
  // looked at): addresses are looked up module by module. `recording` must outlive the table.
  FrameTable(const recording::Recording& recording, const NativeNames& names, const std::string& root,
             const std::vector<bool>* wanted = nullptr);

  // Innermost first, hidden frames left out. Empty for stack 0 and for stacks that are damaged.
  StackView View(uint32_t stack) const;

  // Modules that own frames and have no names, and why; the path first.
  const std::map<std::string, std::string>& unnamed_modules() const { return unnamed_modules_; }

 private:
  void ResolveNative(const NativeNames& names, const std::string& root, const std::vector<bool>* wanted);
  void NameModule(uint32_t module, const std::vector<uint32_t>& frames, const NativeNames& names,
                  const std::string& root);
  void SetNative(uint32_t frame, const ModuleClass& module, const std::vector<symbolizer::SymbolFrame>& symbols);
  void NumberLooks();
  Frame ResolveScript(const recording::Frame& frame) const;
  Frame UnnamedNative(const recording::Frame& frame) const;

  const recording::Recording& recording_;
  std::vector<std::vector<ClassifiedFrame>> frames_;  // inlined native frames make several of one
  std::map<std::string, std::string> unnamed_modules_;
};

}  // namespace nodeleak::report
