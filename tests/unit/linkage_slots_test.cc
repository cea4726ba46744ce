#include "tracer/linkage_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

namespace nodeleak::tracer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

uint64_t Number(const volatile void* address) { return reinterpret_cast<uint64_t>(address); }
RemoteAddress At(const volatile void* address) { return static_cast<RemoteAddress>(Number(address)); }

// A library in our own memory: two PLT entries and a function of its own, and what one of its slots holds.
struct Library {
  uint8_t plt[16] = {0x68, 1, 0, 0, 0}, plt_with_end_branch[16] = {0xf3, 0x0f, 0x1e, 0xfa, 0x68, 1};
  uint8_t function[16] = {0xf3, 0x0f, 0x1e, 0xfa, 0x55};
  uint64_t slot = 0;
};

class Slots : public ::testing::Test {
 protected:
  std::vector<RemoteAddress> ThatLead(const void* target) {
    library_.slot = Number(target);
    const RemoteRange range = {At(&library_), At(&library_ + 1)};
    const absl::StatusOr<RemoteMemory> memory = RemoteMemory::Open(getpid());
    return SlotsThatLeadTo(*memory, {{At(&library_.slot), range}}, At(&function_));
  }
  Library library_;
  uint8_t function_ = 0xc3;  // in another library
};

TEST_F(Slots, ABoundOneLeadsToTheFunction) { EXPECT_THAT(ThatLead(&function_), ElementsAre(At(&library_.slot))); }

TEST_F(Slots, ALazyOneWillLeadThere) {
  EXPECT_THAT(ThatLead(library_.plt), ElementsAre(At(&library_.slot)));
  EXPECT_THAT(ThatLead(library_.plt_with_end_branch), ElementsAre(At(&library_.slot)));
}

// Something else was put there: it is not ours to replace.
TEST_F(Slots, AnotherFunctionIsLeftAlone) {
  EXPECT_THAT(ThatLead(library_.function), IsEmpty());
  EXPECT_THAT(ThatLead(nullptr), IsEmpty());
}

void* (*volatile g_allocate)(size_t) = malloc;

TEST(FindLinkageSlots, AVariableOfTheProgramIsNone) {
  ASSERT_NE(g_allocate, nullptr);
  const absl::StatusOr<RemoteMemory> memory = RemoteMemory::Open(getpid());
  const absl::StatusOr<RemoteObjects> objects = RemoteObjects::Read(*memory);
  ASSERT_TRUE(objects.ok()) << objects.status();
  const std::vector<LinkageSlot> slots = FindLinkageSlots(*memory, *objects, "malloc", nullptr);
  EXPECT_FALSE(slots.empty());
  for (const LinkageSlot& slot : slots) EXPECT_NE(slot.address, At(&g_allocate));
}

}  // namespace
}  // namespace nodeleak::tracer
