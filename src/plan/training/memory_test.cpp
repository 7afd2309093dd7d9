#include "plan/training/memory.h"

#include <gtest/gtest.h>

#include "plan/training/in_flight.h"
#include "plan/training/memory_terms.h"
#include "plan/training/saved_tensors.h"

namespace tessera::plan {
namespace {

constexpr double kGibibyte = 1024.0 * 1024 * 1024;

Blueprint gpt(int64_t hidden, int64_t layers, int64_t heads) {
  Blueprint model;
  model.hidden = hidden, model.vocab = 51200, model.tied = true, model.norm_bias = true;
  Layer layer;
  layer.mixer = {.kind = MixerKind::attention,
                 .heads = heads,
                 .kv_heads = heads,
                 .head_dim = hidden / heads,
                 .v_head_dim = hidden / heads,
                 .qkv_bias = true,
                 .out_bias = true};
  layer.ffn = {.kind = FfnKind::dense, .width = 4 * hidden, .gated = false, .biases = true};
  for (int64_t i = 0; i < layers; ++i) model.append(layer);
  return model;
}

// Before flash attention, with dropout: what the paper's formulas assume.
TrainingSetup megatron_2022(Blueprint model, int64_t micro_batch, int64_t tp, int64_t pp, int64_t v) {
  TrainingSetup setup{.model = std::move(model), .work = {}, .layout = {}, .options = {}};
  setup.work.seq = 2048, setup.work.global_batch = 64 * pp * micro_batch;
  setup.layout.tp = tp, setup.layout.pp = pp, setup.layout.virtual_stages = v;
  setup.layout.micro_batch = micro_batch;
  setup.options.flash_attention = false, setup.options.dropout = true;
  return setup;
}

struct PublishedMemory {
  const char* name;
  int64_t hidden, layers, heads, micro_batch, tp, pp, v;
  double none_gib, best_gib;  // no recomputation; sequence parallelism and selective recomputation
};
// Korthikanti et al. 2205.05198, figure 7: activations of the first stage. Hidden sizes and layouts: table 3.
constexpr PublishedMemory kKorthikanti[] = {
    {"22B", 6144, 48, 64, 4, 8, 1, 1, 59.25, 9.5625},
    {"175B", 12288, 96, 96, 1, 8, 8, 3, 66.84, 12.352},
    {"530B", 20480, 105, 128, 1, 8, 35, 3, 114.02, 23.076},
    {"1T", 25600, 128, 160, 1, 8, 64, 1, 131.25, 26.5625},
};

TEST(TrainingMemory, ActivationsOfTheFirstStageArePublished) {
  for (const PublishedMemory& row : kKorthikanti) {
    TrainingSetup setup =
        megatron_2022(gpt(row.hidden, row.layers, row.heads), row.micro_batch, row.tp, row.pp, row.v);
    auto gib = [&] { return activation_bytes(setup, 0) / kGibibyte; };
    EXPECT_NEAR(gib(), row.none_gib, 0.006) << row.name;
    setup.layout.sequence_parallel = true, setup.layout.recompute.core_attention = true;
    EXPECT_NEAR(gib(), row.best_gib, 0.001) << row.name;
  }
}

// The five formulas of table 2 in bytes of one layer, h = 12288, a = 96, s = 2048, b = 1, t = 8.
TEST(TrainingMemory, LayerFormulasOfTable2) {
  double s = 2048, h = 12288, a = 96, t = 8, sbh = s * h;
  auto kept = [&](bool sp, const char* recompute) {
    TrainingSetup setup = megatron_2022(gpt(12288, 8, 96), 1, 8, 1, 1);
    setup.layout.sequence_parallel = sp, setup.layout.recompute = *parse_recomputation(recompute);
    return layer_activations(setup, setup.model.kinds[0], recomputed_in_full(setup.layout.recompute, 0)).kept;
  };
  EXPECT_DOUBLE_EQ(kept(false, "none"), sbh * (10 + 24 / t + 5 * a * s / (h * t)));
  EXPECT_DOUBLE_EQ(kept(true, "none"), sbh / t * (34 + 5 * a * s / h));
  EXPECT_DOUBLE_EQ(kept(false, "selective"), sbh * (10 + 24 / t));
  EXPECT_DOUBLE_EQ(kept(true, "selective"), 34 * sbh / t);
  EXPECT_DOUBLE_EQ(kept(false, "full"), 2 * sbh);
}

// Rajbhandari et al. 1910.02054 with Megatron's 18 bytes; 405.8 G parameters over 64 ranks.
TEST(TrainingMemory, StatesOfEveryShardingArePublished) {
  TrainingSetup setup{.model = gpt(12288, 8, 96), .work = {}, .layout = {}, .options = {}};
  setup.layout.fsdp = 64, setup.options.framework = Framework::deepspeed;
  StageElements elements{.dense = 405.8e9};
  const std::pair<Sharding, double> expected[] = {{Sharding::none, 6802.8},
                                                  {Sharding::optimizer, 2338.4},
                                                  {Sharding::gradients, 850.3},
                                                  {Sharding::parameters, 106.3}};
  for (const auto& [sharding, gib] : expected) {
    setup.layout.sharding = sharding;
    EXPECT_NEAR(state_bytes(setup, elements).total() / kGibibyte, gib, 0.06) << to_string(sharding);
  }
}

StageElements stage_elements(const TrainingSetup& setup, size_t stage) {
  MemoryTerms terms;
  const StagesLayers& all = terms.stages(setup);
  return elements_of(all.different[all.of_stage[stage]], terms.model(setup));
}

TEST(TrainingMemory, RanksOfOneCopyHoldEachParameterOnce) {
  TrainingSetup setup = megatron_2022(gpt(4096, 12, 32), 1, 4, 3, 2);
  setup.model.norm_bias = false;
  double sum = 0, replicated = 0;
  for (size_t stage = 0; stage < 3; ++stage) sum += 4 * stage_elements(setup, stage).dense;
  for (const Layer& layer : setup.model.kinds)
    for (const Weight& weight : weights(setup.model, layer))
      if (weight.split == Split::none) replicated += 12 * 3 * static_cast<double>(weight.elements());
  replicated += 3 * 4096;             // final norm
  double head_copy = 51200.0 * 4096;  // the last stage's copy of the tied embedding
  EXPECT_DOUBLE_EQ(sum, tally(setup.model).total + replicated + head_copy);
}

TEST(TrainingMemory, ExpertParallelismDividesStatesButNotActivations) {
  TrainingSetup setup{.model = gpt(2048, 4, 16), .work = {}, .layout = {}, .options = {}};
  for (Layer& layer : setup.model.kinds)
    layer.ffn = {.kind = FfnKind::moe, .experts = 64, .top_k = 4, .expert_width = 1024};
  setup.layout.dp = 8;
  double alone = activation_bytes(setup, 0), states = stage_elements(setup, 0).experts;
  setup.layout.ep = 8;
  EXPECT_EQ(activation_bytes(setup, 0), alone);
  EXPECT_EQ(stage_elements(setup, 0).experts, states / 8);
  double width = 4 * 2048.0 * (2 * 2048 + 2 * 2 * 1024 + 2 * 1024);  // top 4 rows of each of 2048 tokens
  double experts = 0;
  for (const SavedTensor& tensor : saved_by_layer(setup, setup.model.kinds[0]))
    if (std::string(tensor.name).starts_with("expert")) experts += tensor.bytes;
  EXPECT_EQ(experts, width);
}

TEST(TrainingMemory, InterleavingKeepsWhatTheScheduleRuns) {
  TrainingSetup setup = megatron_2022(gpt(4096, 24, 32), 1, 1, 4, 3);
  auto first_stage = [&] {
    std::vector<double> chunks;
    for (int64_t chunk = 0; chunk < 3; ++chunk) chunks.push_back(micro_batches_in_flight(setup, 0, chunk));
    return chunks;
  };
  EXPECT_EQ(chunks_in_flight(setup, 0), 4 * 3 + 4 - 1);  // (1 + (p - 1) / (p v)) p v
  EXPECT_EQ(first_stage(), (std::vector<double>{7, 4, 4}));
  setup.work.global_batch = 4;  // one round of micro-batches: nothing beyond them
  EXPECT_EQ(first_stage(), (std::vector<double>{4, 4, 4}));
}

// Qi et al. 2023, section 4.1: of a GPT layer's activations of 34 s b h, 32 s b h stay for its weight gradients
// (10 b s h of inputs and 22 of gradients), the rest goes with the backward of its inputs.
TEST(TrainingMemory, WeightGradientsOfAGptLayerNeedWhatIsPublished) {
  TrainingSetup setup = megatron_2022(gpt(12288, 8, 96), 1, 8, 8, 1);
  setup.layout.sequence_parallel = true;
  EXPECT_DOUBLE_EQ(weight_gradient_bytes(setup, setup.model.kinds[0]), 32 * 2048.0 * 12288 / 8);
}

// ZB-H1 puts stage off weight gradients of as many micro-batches as the stage's number: stage i holds
// (p - i) M_B + i M_W, with M_B what a backward needs and M_W what weights need.
TEST(TrainingMemory, LaterStagesOfZeroBubbleHoldDeferredWeightGradients) {
  TrainingSetup setup = megatron_2022(gpt(4096, 32, 32), 1, 1, 8, 1);
  setup.layout.recompute.core_attention = true;
  double layers = 4;
  double backward = layers * layer_activations(setup, setup.model.kinds[0], false).kept;
  double weights = layers * weight_gradient_bytes(setup, setup.model.kinds[0]);
  ASSERT_LT(weights, backward);
  double plain = activation_bytes(setup, 7);
  EXPECT_DOUBLE_EQ(plain, backward);
  setup.layout.schedule = PipelineKind::zb_h1;
  for (int64_t stage : {0, 3, 7})
    EXPECT_DOUBLE_EQ(activation_bytes(setup, stage),
                     static_cast<double>(8 - stage) * backward + static_cast<double>(stage) * weights);
  // Recomputed in full, a micro-batch that waits for its weights costs far more than one that waits for its
  // backward.
  setup.layout.recompute = *parse_recomputation("full");
  EXPECT_GT(activation_bytes(setup, 7), 3 * activation_bytes(setup, 0));
}

// ZB-V: as much as the first stage of 1F1B, on every stage; DualPipe: (p + 1) / p of it.
TEST(TrainingMemory, ZeroBubbleVAndDualPipeHoldTheActivationsOfTheirPapers) {
  TrainingSetup setup = megatron_2022(gpt(4096, 32, 32), 1, 1, 8, 1);
  double first = activation_bytes(setup, 0);
  for (int64_t stage : {0, 4, 7}) {
    setup.layout.schedule = PipelineKind::zb_v;
    EXPECT_DOUBLE_EQ(activation_bytes(setup, stage), first) << stage;
    setup.layout.schedule = PipelineKind::dualpipe;
    EXPECT_DOUBLE_EQ(activation_bytes(setup, stage), first * 9 / 8) << stage;
  }
}

// Peak of torch.cuda.max_memory_allocated on 8 B200, Megatron-Core 0.14 (MooreThreads/SimuMax, v1.2):
// Llama-3-70B cut to 12 layers and DeepSeek-V3 cut to 4; the DeepSeek rows were looked at only after the model
// stood.
TrainingSetup simumax_llama70b(int64_t tp, int64_t pp, int64_t dp) {
  ModelSpec spec;
  spec.layers = 12, spec.hidden = 8192, spec.ffn = 28672, spec.heads = 64, spec.kv_heads = 8,
  spec.head_dim = 128, spec.vocab = 128256;
  TrainingSetup setup{.model = blueprint(spec), .work = {}, .layout = {}, .options = {}};
  setup.work.seq = 4096, setup.work.global_batch = 4 * dp;
  setup.layout.tp = tp, setup.layout.pp = pp, setup.layout.dp = dp, setup.layout.sequence_parallel = tp > 1;
  setup.options.fused_loss = true;
  return setup;
}
TrainingSetup simumax_deepseek_v3(int64_t pp, int64_t ep) {
  TrainingSetup setup = simumax_llama70b(1, pp, 8 / pp);
  Blueprint model;
  model.hidden = 7168, model.vocab = 129280;
  Layer layer;
  layer.mixer = {.kind = MixerKind::mla,
                 .heads = 128,
                 .kv_heads = 128,
                 .head_dim = 192,
                 .v_head_dim = 128,
                 .q_rank = 1536,
                 .kv_rank = 512,
                 .nope_dim = 128,
                 .rope_dim = 64};
  for (int i = 0; i < 4; ++i) {
    layer.ffn = {.kind = FfnKind::dense, .width = 18432};
    if (i > 0)
      layer.ffn = {
          .kind = FfnKind::moe, .experts = 256, .top_k = 8, .expert_width = 2048, .shared_width = 2048};
    model.append(layer);
  }
  setup.model = model, setup.layout.ep = ep, setup.layout.etp = 1;
  return setup;
}

TEST(TrainingMemory, PeaksOnB200AreWithinOnePercent) {
  auto peak = [](const TrainingSetup& setup) {
    double most = 0;
    for (const TrainingMemory& stage : training_memory(setup))
      most = std::max(most, stage.allocated() / kGibibyte);
    return most;
  };
  EXPECT_NEAR(peak(simumax_llama70b(1, 2, 4)) / 66.55, 1, 0.01);
  EXPECT_NEAR(peak(simumax_llama70b(2, 1, 4)) / 60.68, 1, 0.01);
  EXPECT_NEAR(peak(simumax_llama70b(4, 1, 2)) / 39.07, 1, 0.01);
  EXPECT_NEAR(peak(simumax_llama70b(8, 1, 1)) / 28.29, 1, 0.01);
  EXPECT_NEAR(peak(simumax_deepseek_v3(1, 8)) / 104.3, 1, 0.01);
  EXPECT_NEAR(peak(simumax_deepseek_v3(2, 4)) / 114.0, 1, 0.01);
}

// BLOOM's chronicles (2022-02, 384 A100 of 80 GB, DeepSpeed ZeRO-1, full recomputation): what ran and what did
// not.
TrainingSetup bloom(int64_t hidden, int64_t layers, int64_t heads, int64_t tp, int64_t pp, int64_t dp,
                    int64_t micro_batch) {
  TrainingSetup setup{.model = gpt(hidden, layers, heads), .work = {}, .layout = {}, .options = {}};
  setup.model.vocab = 250880;
  setup.work.seq = 2048, setup.work.global_batch = dp * pp * 8 * micro_batch;
  setup.layout.tp = tp, setup.layout.pp = pp, setup.layout.dp = dp, setup.layout.micro_batch = micro_batch;
  setup.layout.recompute = *parse_recomputation("full");
  setup.options = {.framework = Framework::deepspeed, .flash_attention = false, .gradient_bytes = 2};
  return setup;
}

TEST(TrainingMemory, PublishedOutOfMemoryPointsAreRefusedAndWhatRanIsAccepted) {
  constexpr double kA100 = 80 * kGibibyte;
  EXPECT_FALSE(check_fits(bloom(14336, 72, 64, 8, 1, 48, 1), kA100).ok());
  EXPECT_FALSE(check_fits(bloom(14336, 72, 64, 2, 6, 32, 1), kA100).ok());
  EXPECT_FALSE(check_fits(bloom(14336, 72, 64, 2, 6, 32, 2), kA100).ok());
  TrainingSetup accumulated = bloom(12288, 100, 64, 4, 6, 16, 1);  // 184B with float32 accumulation
  accumulated.options.shard_gradient_accumulator = false;
  EXPECT_FALSE(check_fits(accumulated, kA100).ok());
  EXPECT_TRUE(check_fits(bloom(14336, 72, 64, 8, 12, 4, 8), kA100).ok());  // 69 GB
  EXPECT_TRUE(check_fits(bloom(14336, 72, 64, 4, 6, 16, 4), kA100).ok());  // 75 GB
  Status refused = check_fits(accumulated, kA100);
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
}

TEST(TrainingMemory, LeastRecomputationIsTheMildestThatFits) {
  TrainingSetup setup = simumax_llama70b(2, 1, 4);
  EXPECT_EQ(to_string(*least_recomputation(setup, 180 * kGibibyte)), "none");
  auto tight = least_recomputation(setup, 60 * kGibibyte);
  ASSERT_TRUE(tight.ok());
  EXPECT_NE(to_string(*tight), "none");
  setup.layout.recompute = *tight;
  EXPECT_TRUE(check_fits(setup, 60 * kGibibyte).ok());
  EXPECT_FALSE(least_recomputation(setup, 20 * kGibibyte).ok());
}

}  // namespace
}  // namespace tessera::plan
