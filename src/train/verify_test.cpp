#include "train/verify.h"

#include <gtest/gtest.h>

#include "data/synthetic.h"

namespace tessera::train {
namespace {

ModelSpec tiny(bool moe, bool tied) {
  ModelSpec spec;
  spec.architecture = moe ? Architecture::qwen3_moe : Architecture::llama;
  spec.layers = 4, spec.hidden = 32, spec.ffn = 64, spec.heads = 8, spec.kv_heads = 4, spec.head_dim = 8;
  spec.vocab = 61, spec.max_positions = 32, spec.norm_eps = 1e-5, spec.tied = tied, spec.qk_norm = moe;
  if (moe)
    spec.moe = {.experts = 8, .top_k = 2, .ffn = 32, .normalize_top_k = true, .aux_loss_coefficient = 0.01};
  return spec;
}

struct Case {
  bool moe, tied;
  Precision precision;
  const char* against;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << (c.moe ? "moe " : "dense ") << (c.tied ? "tied " : "") << to_string(c.precision) << " "
             << c.against;
}

class EqualWork : public ::testing::TestWithParam<Case> {};

Result<VerifyResult> compare(const Case& c, Numerics numerics, int64_t steps) {
  TrainerOptions options{.model = tiny(c.moe, c.tied)};
  options.work = {
      .seq = 32, .micro_batch = 1, .global_batch = 12, .precision = c.precision, .numerics = numerics};
  options.optimizer = {.learning_rate = 1e-2, .warmup_steps = 1};
  data::SyntheticSource source({.vocab = 61, .seq = 32, .seed = 3, .documents_mean_tokens = 12});
  return verify(options, Layout(), *parse_layout(c.against), steps, source, {});
}

TEST_P(EqualWork, IsBitwiseEqualInExactMode) {
  auto result = compare(GetParam(), Numerics::exact, 2);
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_FALSE(result->first_difference)
      << "step " << result->first_difference->step << ": " << result->first_difference->operation << " of "
      << result->first_difference->tensor;
  EXPECT_EQ(result->hash, result->hash_against);
  EXPECT_LT(result->losses.back(), result->losses.front());
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (Precision precision : {Precision::float32, Precision::bf16}) {
    for (const char* against : {"dp=2", "dp=3", "dp=4", "fsdp=2", "fsdp=4", "tp=2", "tp=4", "pp=2", "pp=4",
                                "fsdp=2,tp=2", "tp=2,pp=2", "dp=2,pp=2", "fsdp=2,tp=2,pp=2", "dp=2,fsdp=2",
                                "pp=2,schedule=gpipe", "pp=2,recompute=full"})
      all.push_back({false, false, precision, against});
    for (const char* against : {"dp=2", "fsdp=4", "tp=2", "tp=4", "pp=4", "fsdp=2,tp=2,pp=2", "fsdp=2,ep=2",
                                "fsdp=4,ep=2", "fsdp=4,ep=4", "fsdp=2,pp=2,ep=2", "dp=2,fsdp=2,ep=4",
                                "dp=2,fsdp=2,ep=2", "fsdp=2,tp=2,ep=2", "fsdp=2,ep=2,recompute=full"})
      all.push_back({true, false, precision, against});
    for (const char* against : {"dp=2", "tp=4", "pp=2", "fsdp=2,pp=2"})
      all.push_back({false, true, precision, against});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Layouts, EqualWork, ::testing::ValuesIn(cases()));

TEST(Fast, LayoutsStayWithinTheBound) {
  for (Case c : {Case{false, false, Precision::float32, "fsdp=2,tp=2"},
                 Case{false, false, Precision::bf16, "tp=2,pp=2"}}) {
    auto result = compare(c, Numerics::fast, 3);
    ASSERT_TRUE(result.ok()) << result.error().message;
    EXPECT_TRUE(result->equal) << c;
    EXPECT_GT(result->steps[0].gradient_difference, 0) << "fast mode that is exact would make this test empty";
  }
}

// Exactness is not bought by gathering everything: a rank holds log2(leaves) + 2 copies of its share at most,
// beside the leaf of one block on its way.
TEST(Exact, GradientMemoryAndTrafficStayWithinTheirLimits) {
  Case c{false, false, Precision::float32, "fsdp=4"};
  auto exact = compare(c, Numerics::exact, 1), fast = compare(c, Numerics::fast, 1);
  ASSERT_TRUE(exact.ok() && fast.ok());
  ModelSpec model = tiny(false, false);
  int64_t parameters = count_parameters(model).total,
          block = 2 * parameters / model.layers;  // one block, generously
  int64_t leaves = 12, copies = 2;
  while (leaves > 1) leaves = (leaves + 1) / 2, ++copies;
  EXPECT_LE(exact->gradient_bytes_peak, 4 * (copies * parameters / 4 + 2 * block));
  EXPECT_LE(exact->bytes_sent, 2 * fast->bytes_sent);
}

TEST(Verify, OtherDataGiveAnotherHash) {
  TrainerOptions options{.model = tiny(false, false)};
  options.work = {.seq = 32, .micro_batch = 1, .global_batch = 12, .numerics = Numerics::exact};
  data::SyntheticSource source({.vocab = 61, .seq = 32, .seed = 3, .documents_mean_tokens = 12});
  data::SyntheticSource other({.vocab = 61, .seq = 32, .seed = 4, .documents_mean_tokens = 12});
  auto a = verify(options, Layout(), *parse_layout("dp=2"), 1, source, {});
  auto b = verify(options, Layout(), *parse_layout("dp=2"), 1, other, {});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->hash, b->hash);
}

}  // namespace
}  // namespace tessera::train
