#include "serve/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace tessera::serve {
namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

// Shares of `draws` samples at positions 0, 1, ...
std::map<int64_t, double> shares(const SamplingOptions& options, int64_t draws = 40'000) {
  std::map<int64_t, double> share;
  for (int64_t position = 0; position < draws; ++position)
    share[sample(kLogits, options, position)] += 1.0 / static_cast<double>(draws);
  return share;
}

std::vector<double> softmax(double temperature) {
  double sum = 0;
  std::vector<double> out;
  for (float logit : kLogits) sum += out.emplace_back(std::exp(logit / temperature));
  for (double& value : out) value /= sum;
  return out;
}

TEST(Sampler, ZeroTemperatureTakesTheLargestAndOfEqualOnesTheFirst) {
  EXPECT_EQ(sample(kLogits, {.temperature = 0}, 7), 1);
  EXPECT_EQ(sample(kLogits, {.temperature = 2, .top_k = 1}, 7), 1);
}

// Standard error of a share is at most 0.5 / sqrt(40,000) = 0.0025; the bound is 4 of them.
TEST(Sampler, SharesFollowTheSoftmaxAtEachTemperature) {
  for (double temperature : {0.5, 1.0, 2.0}) {
    auto share = shares({.temperature = temperature, .seed = 3});
    auto expected = softmax(temperature);
    for (size_t token = 0; token < expected.size(); ++token)
      EXPECT_NEAR(share[static_cast<int64_t>(token)], expected[token], 0.01) << token;
  }
}

TEST(Sampler, TopKKeepsTheLikeliestInTheirProportion) {
  auto share = shares({.top_k = 3, .seed = 5});
  EXPECT_EQ(share.size(), 3u);
  double sum = 2 * std::exp(3.0) + std::exp(2.0);
  EXPECT_NEAR(share[2], std::exp(2.0) / sum, 0.01);
}

TEST(Sampler, TopPKeepsTheSmallestSetWithThatProbability) {
  auto p = softmax(1);
  double two = p[1] + p[3];
  EXPECT_EQ(shares({.top_p = two - 1e-6}).size(), 2u);
  EXPECT_EQ(shares({.top_p = two + 1e-6}).size(), 3u);
  EXPECT_EQ(shares({.top_p = 1e-9}).size(), 1u);
}

TEST(Sampler, SameSeedAndPositionGiveTheSameTokenAndOthersDiffer) {
  int different_seed = 0, different_position = 0;
  for (int64_t position = 0; position < 200; ++position) {
    int64_t token = sample(kLogits, {.seed = 1}, position);
    EXPECT_EQ(sample(kLogits, {.seed = 1}, position), token);
    different_seed += sample(kLogits, {.seed = 2}, position) != token;
    different_position += sample(kLogits, {.seed = 1}, position + 1) != token;
  }
  EXPECT_GT(different_seed, 50);
  EXPECT_GT(different_position, 50);
}

TEST(Sampler, LogprobsAreTheLogOfTheSoftmaxInDescendingOrder) {
  auto p = softmax(1);
  EXPECT_NEAR(logprob_of(kLogits, 2), std::log(p[2]), 1e-12);
  auto top = top_logprobs(kLogits, 3);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0].token, 1);
  EXPECT_EQ(top[1].token, 3);
  EXPECT_NEAR(top[2].logprob, std::log(p[2]), 1e-12);
  EXPECT_EQ(top_logprobs(kLogits, 99).size(), kLogits.size());
}

}  // namespace
}  // namespace tessera::serve
