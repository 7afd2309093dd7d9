// How many distinct experts a step touches and how loaded the fullest rank is, when expert e is chosen with a
// share that falls as (e + 1)^-skew (0: uniform), independently for each token. Distinct experts of n tokens:
// sum over e of 1 - (1 - q_e)^n, where q_e = min(1, top_k * share_e).
//
// Values are tabulated over powers of two of the tokens and interpolated; ranks hold experts dealt round robin
// in a fixed shuffled order. Threads: const functions from any thread.
#pragma once

#include <array>
#include <cstdint>

namespace tessera::plan::serving {

class ExpertLoad {
 public:
  ExpertLoad() = default;  // no experts
  ExpertLoad(int64_t experts, int64_t top_k, int64_t ranks, double skew);

  // Distinct experts on the mean rank.
  double touched_per_rank(double tokens) const { return at(touched_, tokens); }
  // Load of the fullest rank over the mean, 1 or more: skew and chance.
  double imbalance(double tokens) const { return at(imbalance_, tokens); }

 private:
  static constexpr int kSteps = 24;  // 1 to 2^23 tokens
  double at(const std::array<double, kSteps>& table, double tokens) const;
  std::array<double, kSteps> touched_{}, imbalance_{};
};

}  // namespace tessera::plan::serving
