#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/likely_sites.h"
#include "report/report.h"

namespace nodeleak::report {
namespace {

Group Made(const char* function, uint32_t line, uint64_t blocks, Verdict verdict, const char* origin) {
  Group group;
  group.kind = Kind::kNode;
  group.live_blocks = blocks;
  group.verdict = verdict;
  group.site = Site{.function = function, .file = "/srv/app/server.js", .line = line, .column = 7, .package = ""};
  group.origin = Origin{.function = origin, .module = "/opt/bin/node", .file = "", .line = 0, .package = ""};
  return group;
}

Group OfThePool(Kind kind, const char* origin, uint64_t blocks) {
  Group group = Made("", 0, blocks, Verdict::kGrowing, origin);
  group.kind = kind;
  group.site = std::nullopt;
  group.threads = {"libuv pool"};
  return group;
}

TEST(LikelySites, ThePoolsMemoryIsOfTheLineThatMadeTheStreams) {
  std::vector<Group> groups = {OfThePool(Kind::kZlib, "deflateInit2_", 940),
                               Made("compress", 4, 188, Verdict::kGrowing, "node::ZlibStream::New"),
                               Made("fetch", 9, 12, Verdict::kGrowing, "node::ZlibStream::New"),
                               Made("pool", 20, 300, Verdict::kStartup, "node::ZlibStream::New"),
                               Made("other", 30, 900, Verdict::kGrowing, "node::TCPWrap::New")};
  AddLikelySites(&groups);
  ASSERT_TRUE(groups[0].likely_site.has_value());
  EXPECT_EQ(groups[0].likely_site->site.function, "compress") << "what grows is of what grows";
  EXPECT_EQ(groups[0].likely_site->objects, 188u);
  EXPECT_EQ(groups[0].likely_site->all_objects, 500u);
  for (size_t i = 1; i < groups.size(); ++i) EXPECT_FALSE(groups[i].likely_site.has_value());
}

TEST(LikelySites, EachCompressionHasItsOwnStreams) {
  std::vector<Group> groups = {OfThePool(Kind::kBrotli, "BrotliEncoderCompressStream", 9),
                               OfThePool(Kind::kNode, "ZSTD_resetCCtx_internal", 8),
                               OfThePool(Kind::kZlib, "inflateInit2_", 7),
                               OfThePool(Kind::kNode, "node::fs::FSReqAfterScope::FSReqAfterScope", 6),
                               Made("brotli", 1, 9, Verdict::kGrowing, "node::BrotliCompressionStream<...>::New"),
                               Made("zstd", 2, 8, Verdict::kGrowing, "node::ZstdStream<...>::New")};
  AddLikelySites(&groups);
  EXPECT_EQ(groups[0].likely_site->site.function, "brotli");
  EXPECT_EQ(groups[1].likely_site->site.function, "zstd");
  EXPECT_FALSE(groups[2].likely_site.has_value());
  EXPECT_FALSE(groups[3].likely_site.has_value());
}

TEST(LikelySites, StreamsThatAreGoneHoldNothing) {
  std::vector<Group> groups = {OfThePool(Kind::kZlib, "deflateInit2_", 5),
                               Made("compress", 4, 0, Verdict::kGarbage, "node::ZlibStream::New")};
  AddLikelySites(&groups);
  EXPECT_FALSE(groups[0].likely_site.has_value());
}

TEST(LikelySites, WhatOtherThreadsAllocatedIsNotOfTheStreams) {
  std::vector<Group> groups = {OfThePool(Kind::kZlib, "inflateInit2_", 5),
                               Made("compress", 4, 188, Verdict::kGrowing, "node::ZlibStream::New")};
  groups[0].threads = {"main"};
  AddLikelySites(&groups);
  EXPECT_FALSE(groups[0].likely_site.has_value());
}

TEST(LikelySites, ALineInSeveralGroupsCountsAsOne) {
  std::vector<Group> groups = {OfThePool(Kind::kZlib, "deflateInit2_", 940),
                               Made("compress", 4, 100, Verdict::kGrowing, "node::ZlibStream::New"),
                               Made("compress", 4, 88, Verdict::kGrowing, "node::ZlibStream::New"),
                               Made("fetch", 9, 12, Verdict::kGrowing, "node::ZlibStream::New")};
  AddLikelySites(&groups);
  EXPECT_EQ(groups[0].likely_site->objects, 188u);
  EXPECT_EQ(groups[0].likely_site->all_objects, 200u);
}

TEST(LikelySites, AreShownAsLikely) {
  Report report;
  report.process.working_directory = "/srv/app";
  report.groups = {OfThePool(Kind::kZlib, "deflateInit2_", 940),
                   Made("compress", 4, 188, Verdict::kGrowing, "node::ZlibStream::New")};
  report.groups[0].live_bytes = 50'000'000;
  AddLikelySites(&report.groups);
  const std::string text = RenderText(report, {});
  EXPECT_THAT(text, testing::HasSubstr("zlib          likely compress  server.js:4:7"));
  EXPECT_THAT(text, testing::HasSubstr("  likely   compress  server.js:4:7\n           by number: all 188 streams of "
                                       "this sort that are outstanding were created there\n"));
  EXPECT_THAT(text, testing::HasSubstr(" at 1 site,"));
  report.groups[0].live_bytes_error = 50'000;
  EXPECT_THAT(RenderText(report, {}), testing::HasSubstr("by number: all ~188 streams")) << "of a sample";
  const std::string json = RenderJson(report);
  EXPECT_THAT(json, testing::HasSubstr("\"likelySite\""));
  EXPECT_THAT(json, testing::HasSubstr("\"objects\": 188"));
}

}  // namespace
}  // namespace nodeleak::report
