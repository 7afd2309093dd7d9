#include "serve/logit_rules.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera::serve {
namespace {

const std::vector<float> kPlainLogits = {1.0f, 3.0f, -2.0f, 0.5f};

std::vector<float> applied(LogitRules& rules) {
  auto row = rules.apply(kPlainLogits);
  return {row.begin(), row.end()};
}

TEST(LogitRules, WithoutOptionsTheRowItselfComesBack) {
  LogitRules rules({}, {3}, std::vector<int64_t>{1});
  rules.accept(2);
  EXPECT_EQ(rules.apply(kPlainLogits).data(), kPlainLogits.data());
}

// OpenAI: logit - count * frequency - (count > 0) * presence. CTRL (Keskar et al. 2019), as at Hugging Face:
// positive logits are divided, negative ones multiplied, for the prompt's tokens too.
TEST(LogitRules, PenaltiesFollowTheirFormulas) {
  LogitRules rules({.presence_penalty = 0.25, .frequency_penalty = 0.5, .repetition_penalty = 2}, {},
                   std::vector<int64_t>{0, 2});
  EXPECT_EQ(applied(rules), (std::vector<float>{0.5f, 3.0f, -4.0f, 0.5f}));
  for (int64_t token : {1, 2, 2}) rules.accept(token);
  EXPECT_EQ(applied(rules), (std::vector<float>{0.5f, 1.5f - 0.75f, -4.0f - 1.25f, 0.5f}));
}

TEST(LogitRules, BiasIsAddedBeforeThePenalty) {
  LogitRules rules({.bias = {{0, 2.0f}, {1, -100.0f}}, .repetition_penalty = 2}, {}, std::vector<int64_t>{0});
  EXPECT_EQ(applied(rules), (std::vector<float>{1.5f, -97.0f, -2.0f, 0.5f}));
}

TEST(LogitRules, EndTokensAreHeldBackUntilMinTokens) {
  LogitRules rules({.min_tokens = 2}, {1}, std::vector<int64_t>{0});
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(applied(rules)[1], -HUGE_VALF);
    rules.accept(0);
  }
  EXPECT_EQ(applied(rules), kPlainLogits);
}

// Allows the token after the last one, then nothing.
struct Counting : TokenConstraint {
  int64_t next = 0, asked = 0;
  void restrict(TokenMask& mask) override {
    ++asked;
    mask.forbid_all();
    if (next < 3) mask.allow(next);
  }
  void accept(int64_t token) override { next = token + 1; }
};

TEST(LogitRules, ConstraintLeavesOnlyWhatItAllowsAndMayEndTheAnswer) {
  LogitRules rules({.constraint = std::make_shared<Counting>()}, {}, std::vector<int64_t>{0});
  for (int64_t token = 0; token < 3; ++token) {
    for (double temperature : {0.0, 1.0})
      EXPECT_EQ(sample(rules.apply(kPlainLogits), {.temperature = temperature}, token), token);
    rules.accept(token);
  }
  EXPECT_TRUE(rules.apply(kPlainLogits).empty());
}

TEST(LogitRules, WhatIsPreparedIsNotAskedAgain) {
  auto counting = std::make_shared<Counting>();
  LogitRules rules({.constraint = counting}, {}, std::vector<int64_t>{0});
  for (int64_t token = 0; token < 3; ++token) {
    rules.prepare(std::ssize(kPlainLogits));
    EXPECT_EQ(counting->asked, token + 1);
    EXPECT_EQ(sample(rules.apply(kPlainLogits), {.temperature = 0}, token), token);
    EXPECT_EQ(counting->asked, token + 1);
    rules.accept(token);
  }
}

TEST(Sampler, MinPKeepsWhatIsLikelyEnoughBesideTheLikeliest) {
  double share = std::exp(1.0 - 3.0);  // of token 0, beside token 1
  auto kinds = [](double min_p) {
    std::vector<int> seen(kPlainLogits.size());
    for (int64_t position = 0; position < 4000; ++position)
      ++seen[static_cast<size_t>(sample(kPlainLogits, {.min_p = min_p}, position))];
    return std::count_if(seen.begin(), seen.end(), [](int count) { return count > 0; });
  };
  EXPECT_EQ(kinds(share - 1e-6), 2);
  EXPECT_EQ(kinds(share + 1e-6), 1);
}

}  // namespace
}  // namespace tessera::serve
