#include "spec/blueprint.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

ModelSpec llama_70b() {
  ModelSpec spec;
  spec.layers = 80, spec.hidden = 8192, spec.ffn = 28672, spec.heads = 64, spec.kv_heads = 8,
  spec.head_dim = 128, spec.vocab = 128256;
  return spec;
}
ModelSpec llama_405b() {
  ModelSpec spec = llama_70b();
  spec.layers = 126, spec.hidden = 16384, spec.ffn = 53248, spec.heads = 128;
  return spec;
}
ModelSpec qwen3_30b_a3b() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen3_moe;
  spec.layers = 48, spec.hidden = 2048, spec.ffn = 6144, spec.heads = 32, spec.kv_heads = 4,
  spec.head_dim = 128, spec.vocab = 151936, spec.qk_norm = true;
  spec.moe = {.experts = 128, .top_k = 8, .ffn = 768, .dense_layers = {0, 5}};
  return spec;
}

// DeepSeek-V3 (arXiv 2412.19437), the published sizes.
Blueprint deepseek_v3() {
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
  for (int index = 0; index < 61; ++index) {
    layer.ffn = {.kind = FfnKind::dense, .width = 18432};
    if (index >= 3)
      layer.ffn = {
          .kind = FfnKind::moe, .experts = 256, .top_k = 8, .expert_width = 2048, .shared_width = 2048};
    model.append(layer);
  }
  return model;
}

TEST(Blueprint, CountsParametersLikeTheInventory) {
  for (const ModelSpec& spec : {llama_70b(), llama_405b(), qwen3_30b_a3b()}) {
    ParameterCount expected = count_parameters(spec);
    ParameterTally got = tally(blueprint(spec));
    EXPECT_EQ(got.total, static_cast<double>(expected.total));
    EXPECT_EQ(got.active, static_cast<double>(expected.active));
  }
}

TEST(Blueprint, CountsFlopsLikeTheInventory) {
  for (const ModelSpec& spec : {llama_70b(), llama_405b(), qwen3_30b_a3b()})
    EXPECT_DOUBLE_EQ(forward_flops_per_token(blueprint(spec), 8192, MaskFlops::credited),
                     forward_flops_per_token(spec, 8192));
}

TEST(Blueprint, TrainingFlopsOf405BArePublished) {  // 326 tokens/s per GPU are 822 TFLOP/s: NVIDIA's own row
  double credited = 3 * forward_flops_per_token(blueprint(llama_405b()), 8192, MaskFlops::credited);
  double full = 3 * forward_flops_per_token(blueprint(llama_405b()), 8192, MaskFlops::full);
  EXPECT_NEAR(326 * credited / 1e12, 822.8, 0.1);
  EXPECT_NEAR(326 * full / 1e12, 856, 1);
}

TEST(Blueprint, DeepSeekV3HasItsPublishedParameters) {
  ParameterTally sum = tally(deepseek_v3());
  EXPECT_NEAR(sum.total / 1e9, 671.026, 5e-4);
  EXPECT_NEAR(sum.active / 1e9, 37.55, 5e-3);
  EXPECT_NEAR((sum.active - sum.embedding) / 1e9, 36.63, 5e-3);
}

TEST(Blueprint, CacheBytesPerTokenArePublished) {
  EXPECT_EQ(cache_bytes_per_token(blueprint(llama_70b()), 2), 327680);
  EXPECT_EQ(cache_bytes_per_token(blueprint(llama_405b()), 2), 516096);
  EXPECT_EQ(cache_bytes_per_token(deepseek_v3(), 2), 70272);
}

TEST(Blueprint, WindowCapsCacheAndAttention) {
  Blueprint model = blueprint(llama_70b());
  for (Layer& layer : model.kinds) layer.mixer.window = 128;
  EXPECT_EQ(cache_bytes(model, 100, 2), 100 * 327680);
  EXPECT_EQ(cache_bytes(model, 5000, 2), 128 * 327680);
  // Token i of 1000 sees min(i, 128) tokens; the continuous mean is within half a token of the discrete one.
  double sum = 0;
  for (int i = 1; i <= 1000; ++i) sum += std::min(i, 128);
  EXPECT_NEAR(mean_attended_tokens(model, model.kinds[0].mixer, 1000, MaskFlops::credited), sum / 1000, 0.5);
}

}  // namespace
}  // namespace tessera
