#include "resilience/layout_choice.h"

#include <gtest/gtest.h>

#include "checkpoint/testing_pieces.h"

namespace tessera::resilience {
namespace {

const Work kChoiceWork{.seq = 8,
                       .micro_batch = 1,
                       .global_batch = 12,
                       .numerics = Numerics::exact,
                       .tp_blocks = 2,
                       .seq_chunks = 2};

// Every text reads back to a trainable layout of that many ranks.
void expect_valid(const ModelSpec& model, const std::map<int64_t, std::string>& layouts) {
  for (const auto& [ranks, text] : layouts) {
    auto layout = parse_layout(text);
    ASSERT_TRUE(layout.ok()) << text;
    EXPECT_EQ(layout->processes(), ranks);
    EXPECT_TRUE(validate(model, kChoiceWork, *layout).ok()) << text;
  }
}

TEST(LayoutChoice, EveryNumberOfRanksGetsAValidLayoutOfEqualWork) {
  auto model = checkpoint::testing::tiny_model(true);
  Layout wanted = parse_layout("fsdp=2,ep=2,pp=2").value();
  for (const char* cluster : {"cpu", "no such cluster"}) {
    auto layouts = layouts_of_equal_work(model, kChoiceWork, wanted, cluster);
    expect_valid(model, layouts);
    EXPECT_EQ(layouts.size(), 4u) << cluster;
    EXPECT_EQ(layouts.at(4), to_string(wanted));
  }
}

TEST(LayoutChoice, NumbersWithoutAValidLayoutAreAbsent) {
  auto model = checkpoint::testing::tiny_model(false);
  auto layouts = layouts_of_equal_work(model, kChoiceWork, parse_layout("dp=6").value());
  expect_valid(model, layouts);
  EXPECT_FALSE(layouts.contains(5));  // five divides neither micro-batches nor layers nor blocks
  EXPECT_TRUE(layouts.contains(3));
}

TEST(LayoutChoice, WithoutAPlannerStateIsShardedRatherThanCopied) {
  auto model = checkpoint::testing::tiny_model(false);
  auto layouts =
      layouts_of_equal_work(model, kChoiceWork, parse_layout("tp=2,pp=2").value(), "no such cluster");
  EXPECT_EQ(layouts.at(3), "fsdp=3");
  EXPECT_EQ(layouts.at(2), "fsdp=2");
}

}  // namespace
}  // namespace tessera::resilience
