#include "layout/layout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "layout/extents.h"

namespace tessera {
namespace {

ModelSpec small_moe() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen3_moe;
  spec.layers = 6, spec.hidden = 64, spec.ffn = 128, spec.heads = 8, spec.kv_heads = 4, spec.head_dim = 8,
  spec.vocab = 101;
  spec.moe = {.experts = 8, .top_k = 2, .ffn = 32};
  return spec;
}

TEST(Layout, TextRoundTrips) {
  for (const char* text : {"dp=1", "fsdp=2,tp=2,pp=2,ep=2", "dp=4", "fsdp=4,ep=4,schedule=gpipe",
                           "tp=2,order=fsdp-tp-cp-dp-pp", "pp=4,recompute=full"})
    EXPECT_EQ(to_string(*parse_layout(text)), text);
  EXPECT_EQ(*parse_layout("ep=4,tp=2"), *parse_layout("fsdp=4,ep=4,tp=2"));
  EXPECT_EQ(parse_layout("")->processes(), 1);
}

TEST(Layout, BadTextNamesTheKey) {
  for (const char* text :
       {"tp", "tp=0", "tp=x", "tp=2,tp=2", "tpp=2", "order=tp-dp", "schedule=2f2b", "tp=99999999999999999999"})
    EXPECT_FALSE(parse_layout(text).ok()) << text;
  EXPECT_NE(parse_layout("fsdpp=2").error().message.find("'fsdp'"), std::string::npos);
}

TEST(Layout, SchedulesThatOnlyThePlannerKnowsAreRefusedByName) {
  for (const char* schedule : {"zb-h1", "zb-v", "dualpipe"}) {
    auto layout = parse_layout(std::string("pp=2,schedule=") + schedule);
    ASSERT_FALSE(layout.ok());
    for (const char* word : {schedule, "the trainer runs gpipe or 1f1b", "planned"})
      EXPECT_NE(layout.error().message.find(word), std::string::npos) << layout.error().message;
  }
}

TEST(Layout, CoordinatesAndRanksAreInverse) {
  Layout layout = *parse_layout("dp=2,fsdp=3,tp=2,pp=2");
  std::set<int64_t> seen;
  for (int64_t rank = 0; rank < layout.processes(); ++rank) {
    EXPECT_EQ(rank_of(layout, coordinate_of(layout, rank)), rank);
    seen.insert(rank_of(layout, coordinate_of(layout, rank)));
  }
  EXPECT_EQ(seen.size(), 24u);
  EXPECT_EQ(coordinate_of(layout, 1).tp, 1);  // tp is innermost
}

TEST(Layout, ExpertGroupsAreConsecutiveReplicas) {
  Layout layout = *parse_layout("dp=2,fsdp=4,ep=4,tp=2");
  for (int64_t rank = 0; rank < layout.processes(); ++rank) {
    auto experts = expert_ranks(layout, rank);
    EXPECT_EQ(experts.size(), 4u);
    EXPECT_EQ(experts[static_cast<size_t>(expert_place(layout, coordinate_of(layout, rank)))], rank);
    auto same = expert_replica_ranks(layout, rank);
    EXPECT_EQ(same.size(), 2u);
  }
}

TEST(Layout, ValidateNamesWhatDoesNotDivide) {
  Work work;
  ModelSpec model = small_moe();
  for (const char* good :
       {"dp=1", "dp=2", "dp=3", "fsdp=4,ep=4", "tp=4", "pp=6", "fsdp=2,tp=2,pp=2,ep=2", "dp=2,fsdp=2,ep=4"})
    EXPECT_TRUE(validate(model, work, *parse_layout(good)).ok())
        << good << validate(model, work, *parse_layout(good)).error().message;
  for (const char* bad : {"dp=5", "tp=3", "tp=8", "pp=7", "ep=16", "dp=2,ep=4", "cp=2", "fsdp=3,ep=3"})
    EXPECT_FALSE(validate(model, work, *parse_layout(bad)).ok()) << bad;
}

TEST(Extents, RanksCoverEveryElementOnceWithinAReplica) {
  ModelSpec model = small_moe();
  Layout layout = *parse_layout("tp=2,pp=2,fsdp=2,ep=2");
  for (const TensorSpec& tensor : inventory(model)) {
    int64_t covered = 0;
    for (int64_t rank = 0; rank < layout.processes(); ++rank) {
      Coordinate c = coordinate_of(layout, rank);
      if (holds(model, tensor, layout, c)) covered += tp_extent(tensor, layout.tp, c.tp, 4).elements();
    }
    int64_t copies = (tensor.expert >= 0 ? 1 : 2) * (tensor.split == Split::none ? 2 : 1);
    EXPECT_EQ(covered, copies * tensor.elements()) << tensor.name;
  }
}

TEST(Extents, AnyRangeOfABoxIsItsBoxesInOrder) {
  Extent box{{2, 3}, {5, 7}};
  for (int64_t begin = 0; begin <= 35; ++begin)
    for (int64_t end = begin; end <= 35; ++end) {
      std::vector<int64_t> got, expected;
      for (const Extent& part : extents_of_range(box, begin, end))
        for (int64_t row = 0; row < part.size[0]; ++row)
          for (int64_t column = 0; column < part.size[1]; ++column)
            got.push_back((part.offset[0] + row - 2) * 7 + part.offset[1] + column - 3);
      expected.resize(static_cast<size_t>(end - begin));
      std::iota(expected.begin(), expected.end(), begin);
      ASSERT_EQ(got, expected) << begin << " " << end;
    }
}

TEST(Stages, LayersAreCutEvenlyAndInOrder) {
  ModelSpec model = small_moe();
  Layout layout = *parse_layout("pp=4");
  EXPECT_EQ(stage_layers(model, layout, 0).last, 2);
  EXPECT_EQ(stage_layers(model, layout, 3).first, 5);
  EXPECT_EQ(stage_layers(model, layout, 3).last, 6);
}

}  // namespace
}  // namespace tessera
