#include "plan/serving/expert_load.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace tessera::plan::serving {
namespace {

std::vector<double> shares_of(int64_t experts, double skew) {
  std::vector<double> shares;
  double sum = 0;
  for (int64_t e = 0; e < experts; ++e) {
    shares.push_back(std::pow(static_cast<double>(e + 1), -skew));
    sum += shares.back();
  }
  for (double& share : shares) share /= sum;
  return shares;
}

// Ranks of the experts (by falling share): a fixed order without a pattern, the same on every machine.
std::vector<size_t> ranks_of(size_t experts, size_t ranks) {
  std::vector<size_t> order(experts);
  for (size_t i = 0; i < experts; ++i) order[i] = i;
  uint64_t state = 0x9e3779b97f4a7c15ULL;
  for (size_t i = experts; i > 1; --i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  for (size_t& place : order) place = place * ranks / experts;
  return order;
}

}  // namespace

ExpertLoad::ExpertLoad(int64_t experts, int64_t top_k, int64_t ranks, double skew) {
  std::vector<double> shares = shares_of(experts, skew);
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  std::vector<size_t> rank = ranks_of(shares.size(), load.size());
  for (size_t e = 0; e < shares.size(); ++e) load[rank[e]] += shares[e] * static_cast<double>(ranks);
  double fullest = *std::max_element(load.begin(), load.end());
  std::vector<double> missed;  // by all tokens so far; squared as the tokens double
  for (double share : shares) missed.push_back(1 - std::min(1.0, share * static_cast<double>(top_k)));
  for (int step = 0; step < kSteps; ++step) {
    double tokens = std::ldexp(1.0, step), touched = 0;
    for (double& miss : missed) touched += 1 - miss, miss *= miss;
    touched_[static_cast<size_t>(step)] = touched / static_cast<double>(ranks);
    // Maximum of `ranks` binomial counts of mean m: m + sqrt(2 ln(ranks) m (1 - 1 / ranks)).
    double mean = std::max(1.0, tokens * static_cast<double>(top_k) / static_cast<double>(ranks));
    auto of = static_cast<double>(ranks);
    double chance = std::sqrt(2 * std::log(of) * (1 - 1 / of) / mean);
    double most = std::min(fullest + chance, static_cast<double>(ranks));
    imbalance_[static_cast<size_t>(step)] = ranks == 1 ? 1 : most;
  }
}

double ExpertLoad::at(const std::array<double, kSteps>& table, double tokens) const {
  if (tokens <= 1) return table[0] * std::max(tokens, 0.0);
  double position = std::min(std::log2(tokens), kSteps - 1.001);
  auto below = static_cast<size_t>(position);
  double weight = position - static_cast<double>(below);
  return table[below] * (1 - weight) + table[below + 1] * weight;
}

}  // namespace tessera::plan::serving
