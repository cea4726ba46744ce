// Outside node. Which npm package a file on disk belongs to. Reads package.json files only: regular, at most 1 MiB,
// never waiting. Fails quietly: no package is an answer.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nodeleak::symbolizer {

struct Package {
  std::string name;       // "sharp", "@napi-rs/canvas"
  std::string version;    // "" when package.json cannot be read or has none
  std::string directory;  // where its package.json is (or would be), without `root`
};

// The package of a *.node, .so or JS file: the innermost node_modules/<name> or node_modules/@scope/<name> that
// encloses it (pnpm's node_modules/.pnpm/name@version/node_modules/name too); outside node_modules, the nearest
// package.json upwards that has a name. `root` is "" or "/proc/PID/root". `path` must be absolute.
std::optional<Package> FindPackage(std::string_view path, std::string_view root = "");

// "name@version", or "name".
std::string PackageLabel(const Package& package);

// The strings of the top-level keys "name" and "version" of a package.json text; "" where absent. Exposed for tests.
struct PackageJson {
  std::string name;
  std::string version;
};
PackageJson ParsePackageJson(std::string_view text);

}  // namespace nodeleak::symbolizer
