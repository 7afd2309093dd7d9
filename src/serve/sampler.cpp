#include "serve/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace tessera::serve {

namespace {

// SplitMix64's finalizer (Steele, Lea and Flood 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// The first of the largest. In lanes, which the compiler makes vectors of.
int64_t largest(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> most;
  most.fill(-std::numeric_limits<float>::infinity());
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      most[lane] = logits[i + lane] > most[lane] ? logits[i + lane] : most[lane];
  float max = *std::max_element(most.begin(), most.end());
  for (float logit : logits.subspan(whole)) max = std::max(max, logit);
  const auto found = std::find(logits.begin(), logits.end(), max);
  return found == logits.end() ? 0 : found - logits.begin();
}

double log_sum_exp(std::span<const float> logits) {
  double max = logits[static_cast<size_t>(largest(logits))], sum = 0;
  for (float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

struct Weighted {
  int64_t token;
  double weight;
};
bool less_likely(const Weighted& a, const Weighted& b) {
  return a.weight != b.weight ? a.weight < b.weight : a.token > b.token;
}

std::vector<Weighted> weigh(std::span<const float> logits, double temperature) {
  double max = logits[static_cast<size_t>(largest(logits))];
  std::vector<Weighted> all(logits.size());
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = {static_cast<int64_t>(i), std::exp((logits[i] - max) / temperature)};
  return all;
}

double total_of(std::span<const Weighted> tokens) {
  return std::accumulate(tokens.begin(), tokens.end(), 0.0,
                         [](double sum, const Weighted& token) { return sum + token.weight; });
}

// Moves the likeliest tokens out of `all`, in descending order, until `count` or until they weigh `enough`.
std::vector<Weighted> take_likeliest(std::vector<Weighted>& all, size_t count, double enough) {
  std::make_heap(all.begin(), all.end(), less_likely);
  std::vector<Weighted> kept;
  double sum = 0;
  while (!all.empty() && kept.size() < count && (kept.empty() || sum < enough)) {
    std::pop_heap(all.begin(), all.end(), less_likely);
    kept.push_back(all.back());
    sum += kept.back().weight;
    all.pop_back();
  }
  return kept;
}

std::vector<Weighted> restrict_tokens(std::vector<Weighted> all, const SamplingOptions& options) {
  // The likeliest weighs 1.
  if (options.min_p > 0)
    std::erase_if(all, [&](const Weighted& token) { return token.weight < options.min_p; });
  if (options.top_k > 0) all = take_likeliest(all, static_cast<size_t>(options.top_k), HUGE_VAL);
  if (options.top_p >= 1) return all;
  double enough = options.top_p * total_of(all);
  return take_likeliest(all, all.size(), enough);
}

}  // namespace

double uniform(uint64_t seed, uint64_t counter) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  uint64_t bits = mix(mix(seed + kGolden) + (counter + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

int64_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position) {
  if (options.temperature <= 0 || options.top_k == 1) return largest(logits);
  auto tokens = restrict_tokens(weigh(logits, options.temperature), options);
  double left = uniform(options.seed, static_cast<uint64_t>(position)) * total_of(tokens);
  for (const Weighted& token : tokens) {
    left -= token.weight;
    if (left < 0) return token.token;
  }
  // Rounding can leave a rest after the last token.
  return std::max_element(tokens.begin(), tokens.end(), less_likely)->token;
}

double logprob_of(std::span<const float> logits, int64_t token) {
  return logits[static_cast<size_t>(token)] - log_sum_exp(logits);
}

std::vector<Candidate> top_logprobs(std::span<const float> logits, int64_t top) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  auto count = std::min<ptrdiff_t>(top, std::ssize(order));
  auto likelier = [&](int64_t a, int64_t b) {
    float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), likelier);
  double sum = log_sum_exp(logits);
  std::vector<Candidate> candidates;
  for (ptrdiff_t i = 0; i < count; ++i) {
    int64_t token = order[static_cast<size_t>(i)];
    candidates.push_back({token, logits[static_cast<size_t>(token)] - sum});
  }
  return candidates;
}

}  // namespace tessera::serve
