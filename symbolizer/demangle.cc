#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "symbolizer/names.h"
#include "symbolizer/rust_demangle.h"

namespace nodeleak::symbolizer {
namespace {

// Longer ones exist only in hostile files and in template tests; the demangler's time can grow fast with the length.
constexpr size_t kMaxMangledBytes = 16 << 10;

// LLVM appends ".llvm.<number>" to what it promoted from local.
std::string_view WithoutLlvmSuffix(std::string_view symbol) {
  size_t at = symbol.rfind(".llvm.");
  return at == std::string_view::npos ? symbol : symbol.substr(0, at);
}

std::optional<std::string> DemangleCpp(const std::string& symbol) {
  int status = 0;
  std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), free);
  if (text == nullptr || status != 0) return std::nullopt;
  return std::string(text.get());
}

}  // namespace

std::string Demangle(std::string_view symbol) {
  if (symbol.size() > kMaxMangledBytes) return std::string(symbol);
  const std::string_view plain = WithoutLlvmSuffix(symbol);
  // Rust first: its legacy scheme is valid C++ mangling too, with escapes and a hash left in the name.
  if (std::optional<std::string> name = DemangleRust(plain)) return *name;
  // Without this test "f" would demangle to "float".
  if (plain.starts_with("_Z") || plain.starts_with("___Z")) {
    if (std::optional<std::string> name = DemangleCpp(std::string(plain))) return *name;
  }
  return std::string(symbol);
}

}  // namespace nodeleak::symbolizer
