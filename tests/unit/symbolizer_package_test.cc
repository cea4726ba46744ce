#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "symbolizer/package.h"

namespace nodeleak::symbolizer {
namespace {

namespace fs = std::filesystem;

class PackageTest : public testing::Test {
 protected:
  PackageTest() : root_(fs::path(testing::TempDir()) / ("nodeleak-package-" + std::to_string(getpid()))) {
    fs::create_directories(root_);
  }
  ~PackageTest() override { fs::remove_all(root_); }

  std::string Path(const std::string& relative) const { return (root_ / relative).string(); }
  void Write(const std::string& relative, const std::string& text) const {
    fs::create_directories((root_ / relative).parent_path());
    std::ofstream(root_ / relative) << text;
  }
  std::string LabelOf(const std::string& relative) const {
    std::optional<Package> package = FindPackage(Path(relative));
    return package ? PackageLabel(*package) : "(none)";
  }

  fs::path root_;
};

TEST_F(PackageTest, NearestEnclosingNodeModules) {
  Write("app/node_modules/outer/package.json", R"({"name": "outer", "version": "1.2.3"})");
  Write("app/node_modules/outer/node_modules/inner/package.json", R"({"name": "inner", "version": "4.5.6"})");
  EXPECT_EQ(LabelOf("app/node_modules/outer/build/Release/x.node"), "outer@1.2.3");
  EXPECT_EQ(LabelOf("app/node_modules/outer/node_modules/inner/lib/x.js"), "inner@4.5.6");
}

TEST_F(PackageTest, ScopedPackage) {
  Write("node_modules/@img/sharp-linux-x64/package.json", R"({"name":"@img/sharp-linux-x64","version":"0.33.5"})");
  EXPECT_EQ(LabelOf("node_modules/@img/sharp-linux-x64/lib/sharp-linux-x64.node"), "@img/sharp-linux-x64@0.33.5");
  EXPECT_EQ(FindPackage(Path("node_modules/@img/sharp-linux-x64/lib/a.node"))->directory,
            Path("node_modules/@img/sharp-linux-x64"));
}

TEST_F(PackageTest, PnpmLayout) {
  Write("node_modules/.pnpm/leveldown@6.1.1/node_modules/leveldown/package.json",
        R"({"name":"leveldown","version":"6.1.1"})");
  EXPECT_EQ(LabelOf("node_modules/.pnpm/leveldown@6.1.1/node_modules/leveldown/prebuilds/x.node"), "leveldown@6.1.1");
}

TEST_F(PackageTest, NameOfTheFolderWhenPackageJsonIsMissing) {
  EXPECT_EQ(LabelOf("node_modules/gone/build/x.node"), "gone");
  EXPECT_EQ(LabelOf("node_modules/@scope/gone/x.node"), "@scope/gone");
}

TEST_F(PackageTest, FilesInNodeModulesItselfBelongToNoPackageThere) {
  Write("package.json", R"({"name":"app","version":"0.0.7"})");
  EXPECT_EQ(LabelOf("node_modules/loose.js"), "app@0.0.7");
  EXPECT_EQ(LabelOf("node_modules/@scope/loose.js"), "app@0.0.7");
  EXPECT_EQ(LabelOf("node_modules/.bin/tool"), "app@0.0.7");
}

TEST_F(PackageTest, OutsideNodeModulesTheNearestNamedPackageJson) {
  Write("addon/package.json", R"({"name":"my-addon","version":"2.0.0-rc.1"})");
  Write("addon/build/package.json", R"({"type":"commonjs"})");
  EXPECT_EQ(LabelOf("addon/build/Release/addon.node"), "my-addon@2.0.0-rc.1");
}

TEST_F(PackageTest, RootOfAnotherProcess) {
  Write("srv/package.json", R"({"name":"contained","version":"3.1.4"})");
  std::optional<Package> package = FindPackage("/srv/addon.node", root_.string());
  ASSERT_TRUE(package);
  EXPECT_EQ(PackageLabel(*package), "contained@3.1.4");
  EXPECT_EQ(package->directory, "/srv");
}

TEST_F(PackageTest, AbsoluteLinksStayInsideOfTheRoot) {
  Write("real/package.json", R"({"name":"inside","version":"1.0.0"})");
  fs::create_directories(root_ / "srv");
  fs::create_symlink("/real/package.json", root_ / "srv/package.json");
  std::optional<Package> package = FindPackage("/srv/addon.node", root_.string());
  ASSERT_TRUE(package);
  EXPECT_EQ(package->name, "inside");
}

TEST_F(PackageTest, HostilePackageJsonIsNoAnswer) {
  fs::create_directories(root_ / "node_modules/fifo");
  ASSERT_EQ(mkfifo(Path("node_modules/fifo/package.json").c_str(), 0600), 0);
  EXPECT_EQ(LabelOf("node_modules/fifo/x.node"), "fifo");
  fs::create_directories(root_ / "node_modules/folder/package.json");
  EXPECT_EQ(LabelOf("node_modules/folder/x.node"), "folder");
  Write("node_modules/huge/package.json", R"({"version":"1.0.0","x":")" + std::string(1'999'999, 'y') + "\"}");
  EXPECT_EQ(LabelOf("node_modules/huge/x.node"), "huge");
  Write("node_modules/escape/package.json", R"({"name":"\u001b[31mred","version":"1\n2"})");
  EXPECT_EQ(LabelOf("node_modules/escape/x.node"), "escape");
}

TEST(FindPackage, RelativePathsHaveNone) {
  EXPECT_FALSE(FindPackage(""));
  EXPECT_FALSE(FindPackage("node_modules/x/y.node"));
  EXPECT_FALSE(FindPackage("[vdso]"));
}

TEST(ParsePackageJson, OnlyTheTopLevelCounts) {
  PackageJson json = ParsePackageJson(
      "\xef\xbb\xbf"
      R"(
    { "config": {"name": "wrong", "version": "9", "a": [{"name": "wrong"}, "}]\"{"]},
      "name" : "right", "private": true, "n": -1.5e3, "version":"1.0.\u0030", "author": {"name": "someone"} })");
  EXPECT_EQ(json.name, "right");
  EXPECT_EQ(json.version, "1.0.0");
}

TEST(ParsePackageJson, ValuesThatAreNoStringsAreAbsent) {
  EXPECT_EQ(ParsePackageJson(R"({"name": 7, "version": ["1"]})").name, "");
  EXPECT_EQ(ParsePackageJson(R"({"name": 7, "version": ["1"]})").version, "");
  EXPECT_EQ(ParsePackageJson(R"([{"name": "x"}])").name, "");
}

TEST(ParsePackageJson, EveryTruncationIsSafe) {
  const std::string whole = R"({"a":[{"b":"\u00e9\\"}],"name":"na\"me","version":"1"})";
  for (size_t length = 0; length < whole.size(); ++length) {
    (void)ParsePackageJson(whole.substr(0, length));
    (void)ParsePackageJson(whole.substr(0, length) + "\\");
  }
  EXPECT_EQ(ParsePackageJson(whole).name, "na\"me");
  (void)ParsePackageJson(std::string(1'000'003, '['));
}

}  // namespace
}  // namespace nodeleak::symbolizer
