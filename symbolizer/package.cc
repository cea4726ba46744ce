#include "symbolizer/package.h"

#include "symbolizer/regular_file.h"

namespace nodeleak::symbolizer {
namespace {

constexpr size_t kMaxPackageJsonBytes = 1 << 20;  // npm refuses far smaller ones
constexpr size_t kMaxNameBytes = 214;             // https://docs.npmjs.com/cli/v10/configuring-npm/package-json#name
constexpr int kMaxParents = 64;
constexpr std::string_view kNodeModules = "/node_modules/";

// Printable text of moderate length: it goes to a terminal and into paths.
bool IsPlain(std::string_view text) {
  if (text.empty() || text.size() > kMaxNameBytes) return false;
  for (char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return false;
  }
  return true;
}

std::string_view Component(std::string_view path) { return path.substr(0, path.find('/')); }

// The length of "name/" or "@scope/name/" at the start of what follows node_modules/, without its slash; 0 when the
// file lies in node_modules itself (or in node_modules/.pnpm, .bin).
size_t PackageNameLength(std::string_view rest) {
  size_t length = Component(rest).size();
  if (length == 0 || length == rest.size() || rest[0] == '.') return 0;
  if (rest[0] != '@') return length;
  const size_t name = Component(rest.substr(length + 1)).size();
  const size_t whole = length + 1 + name;
  return name == 0 || whole == rest.size() ? 0 : whole;
}

PackageJson ReadPackageJson(const std::string& directory, const std::string& root) {
  absl::StatusOr<std::string> text = ReadSmallFile(directory + "/package.json", root, kMaxPackageJsonBytes);
  if (!text.ok()) return {};
  PackageJson json = ParsePackageJson(*text);
  if (!IsPlain(json.name)) json.name.clear();
  if (!IsPlain(json.version)) json.version.clear();
  return json;
}

// npm:alias@... installs a package under another name: the name in its package.json is the real one.
std::optional<Package> FindInNodeModules(std::string_view path, const std::string& root) {
  for (size_t at = path.rfind(kNodeModules); at != std::string_view::npos;
       at = at == 0 ? std::string_view::npos : path.rfind(kNodeModules, at - 1)) {
    const std::string_view rest = path.substr(at + kNodeModules.size());
    const size_t length = PackageNameLength(rest);
    if (length == 0) continue;
    Package package;
    package.directory = path.substr(0, at + kNodeModules.size() + length);
    PackageJson json = ReadPackageJson(package.directory, root);
    package.name = json.name.empty() ? std::string(rest.substr(0, length)) : json.name;
    package.version = json.version;
    return package;
  }
  return std::nullopt;
}

std::optional<Package> FindUpwards(std::string_view path, const std::string& root) {
  for (int i = 0; i < kMaxParents; ++i) {
    const size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return std::nullopt;
    path = path.substr(0, slash);
    // build/Release, and "type" markers in dist/, have package.json files without a name.
    PackageJson json = ReadPackageJson(std::string(path), root);
    if (!json.name.empty()) return Package{json.name, json.version, std::string(path)};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Package> FindPackage(std::string_view path, std::string_view root) {
  if (!path.starts_with('/')) return std::nullopt;
  if (std::optional<Package> package = FindInNodeModules(path, std::string(root))) return package;
  return FindUpwards(path, std::string(root));
}

std::string PackageLabel(const Package& package) {
  return package.version.empty() ? package.name : package.name + "@" + package.version;
}

}  // namespace nodeleak::symbolizer
