#include "tracer/older_libc.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace nodeleak::tracer {
namespace {

constexpr char kNewest[] = "GLIBC_2.34", kUnknown[] = "GLIBC_2.94";

// libunwind, asking for a version of libc that the libc of this process does not have.
class OlderLibc : public ::testing::Test {
 protected:
  void SetUp() override {
    void* handle = dlopen("libunwind.so.8", RTLD_LAZY);
    const link_map* link = nullptr;
    ASSERT_TRUE(handle != nullptr && dlinfo(handle, RTLD_DI_LINKMAP, &link) == 0) << dlerror();
    absl::StatusOr<LibraryImage> image = ReadLibraryImage(link->l_name);
    ASSERT_TRUE(image.ok()) << image.status();
    image_ = *std::move(image);
    if (absl::StrReplaceAll({{kNewest, kUnknown}}, &image_.bytes) == 0) GTEST_SKIP() << "made for an older libc itself";
  }

  // Empty: it could be loaded.
  std::string Load() const {
    const int file = memfd_create("older_libc", MFD_CLOEXEC);
    EXPECT_EQ(write(file, image_.bytes.data(), image_.bytes.size()), static_cast<ssize_t>(image_.bytes.size()));
    void* library = dlopen(absl::StrCat("/proc/self/fd/", file).c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::string error = library == nullptr ? dlerror() : "";
    if (library != nullptr) {
      EXPECT_NE(dlsym(library, "_ULx86_64_init_local"), nullptr);
      dlclose(library);
    }
    close(file);
    return error;
  }

  static LibcFeatures Libc(bool has_stat) {
    return {[](const std::string&, const std::string& version) { return version != kUnknown; },
            [has_stat](const char* name) {
              const std::string text = name;
              return has_stat || (text != "stat" && text != "fstat");
            }};
  }
  LibraryImage image_;
};

TEST_F(OlderLibc, DoesNotLoadWhatAsksForANewerOne) { EXPECT_NE(Load().find(kUnknown), std::string::npos) << Load(); }

TEST_F(OlderLibc, FindsByNameWhatItHasInAnotherVersion) {
  FitToOlderLibc(Libc(true), &image_);
  EXPECT_EQ(Load(), "");
}

TEST_F(OlderLibc, GetsAFunctionThatFailsInPlaceOfOneThatItDoesNotHave) {
  absl::StrReplaceAll({{"GLIBC_2.33", kUnknown}}, &image_.bytes);
  EXPECT_EQ(image_.bytes.find("chflags"), std::string::npos);
  FitToOlderLibc(Libc(false), &image_);
  EXPECT_EQ(Load(), "");
  EXPECT_NE(image_.bytes.find(std::string("\0chflags\0", 9)), std::string::npos);
  EXPECT_NE(image_.bytes.find(std::string("\0fchflags\0", 10)), std::string::npos);
}

TEST_F(OlderLibc, LeavesALibraryAsItIsThatAsksForNothingNew) {
  const std::string before = image_.bytes;
  FitToOlderLibc({[](const std::string&, const std::string&) { return true; }, [](const char*) { return true; }},
                 &image_);
  EXPECT_TRUE(image_.bytes == before);
}

}  // namespace
}  // namespace nodeleak::tracer
