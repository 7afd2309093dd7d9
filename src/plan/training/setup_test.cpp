#include "plan/training/setup.h"

#include <gtest/gtest.h>

namespace tessera::plan {
namespace {

Blueprint layers(int64_t count) {
  ModelSpec spec;
  spec.layers = count, spec.hidden = 1024, spec.ffn = 4096, spec.heads = 16, spec.kv_heads = 4,
  spec.head_dim = 64, spec.vocab = 32000;
  return blueprint(spec);
}

TEST(TrainingLayout, TextReadsBackToTheSameLayout) {
  for (const char* text :
       {"dp=1",
        "dp=2,fsdp=4,tp=8,pp=2,cp=2,ep=8,etp=1,schedule=zb-h1,micro_batch=4,recompute=full,sp=on,"
        "sharding=parameters,keep_gathered=on",
        "dp=8,pp=4,virtual_stages=3,recompute=full:first=2", "dp=8,recompute=full:every=2",
        "dp=8,recompute=core_attn+moe_act", "dp=4,tp=2,order=cp-tp-fsdp-dp-pp"}) {
    auto layout = parse_training_layout(text);
    ASSERT_TRUE(layout.ok()) << layout.error().message;
    EXPECT_EQ(to_string(*layout), text);
  }
}

TEST(TrainingLayout, MistypedKeysAndModulesOfferTheNearest) {
  EXPECT_NE(parse_training_layout("microbatch=2").error().message.find("did you mean 'micro_batch'"),
            std::string::npos);
  EXPECT_NE(parse_training_layout("recompute=core_atn").error().message.find("did you mean 'core_attn'"),
            std::string::npos);
  EXPECT_FALSE(parse_training_layout("tp=0").ok());
  EXPECT_FALSE(parse_training_layout("recompute=full:first=x").ok());
}

TEST(TrainingSetup, EveryScheduleHoldsEveryLayer) {
  for (PipelineKind kind : {PipelineKind::one_f_one_b, PipelineKind::zb_v, PipelineKind::dualpipe}) {
    TrainingSetup setup{.model = layers(61), .work = {}, .layout = {}, .options = {}};
    setup.layout.pp = 4, setup.layout.schedule = kind;
    if (kind == PipelineKind::one_f_one_b) setup.layout.virtual_stages = 3;
    std::vector<int> held(61, 0);
    for (int64_t stage = 0; stage < 4; ++stage)
      for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
        LayerRange range = setup.layers_of(stage, chunk);
        for (int64_t layer = range.first; layer < range.last; ++layer) ++held[static_cast<size_t>(layer)];
      }
    EXPECT_EQ(held, std::vector<int>(61, kind == PipelineKind::dualpipe ? 2 : 1));
  }
}

// Llama 3 405B: 126 layers over 16 stages; the first and the last hold one less (arXiv 2407.21783,
// section 3.3.2).
TEST(TrainingSetup, FirstAndLastStageOfLlama405BHoldOneLayerLess) {
  TrainingSetup setup{.model = layers(126), .work = {}, .layout = {}, .options = {}};
  setup.layout.pp = 16;
  auto size = [&](int64_t stage) { return setup.layers_of(stage, 0).last - setup.layers_of(stage, 0).first; };
  EXPECT_EQ(size(0), 7);
  EXPECT_EQ(size(15), 7);
  EXPECT_EQ(size(8), 8);
}

TEST(TrainingSetup, DegreesThatDoNotDivideAreNamed) {
  TrainingSetup setup{.model = layers(8), .work = {}, .layout = {}, .options = {}};
  ASSERT_TRUE(validate(setup).ok());
  auto refused = [&](auto change, const char* word) {
    TrainingSetup wrong = setup;
    change(wrong);
    Status status = validate(wrong);
    ASSERT_FALSE(status.ok()) << word;
    EXPECT_NE(status.error().message.find(word), std::string::npos) << status.error().message;
  };
  refused([](TrainingSetup& s) { s.layout.tp = 3; }, "heads");
  refused([](TrainingSetup& s) { s.layout.dp = 7; }, "sequences of a step");
  refused([](TrainingSetup& s) { s.layout.ep = 2; }, "no experts");
  refused([](TrainingSetup& s) { s.layout.pp = 9; }, "layers");
  refused([](TrainingSetup& s) { s.layout.cp = 3; }, "sequence length");
}

}  // namespace
}  // namespace tessera::plan
