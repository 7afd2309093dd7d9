#include "batching/wait_predictor.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace tessera::batching {

namespace {

constexpr double kMemorySeconds = 20, kDemandSeconds = 5;

void fade_and_add(double& sum, double keep, double more) {
  sum = sum * keep + more;
}

}  // namespace

void WaitPredictor::step_ended(double seconds, int64_t tokens, bool saturated) {
  double keep = std::exp(-seconds / kMemorySeconds), ended = std::exchange(ended_, 0);
  fade_and_add(tokens_, keep, static_cast<double>(tokens));
  fade_and_add(steps_, keep, 1);
  fade_and_add(step_s_, keep, seconds);
  const double keep_demand = std::exp(-seconds / kDemandSeconds);
  for (auto& [tenant, demand] : demand_) {
    fade_and_add(demand.claims, keep_demand, 0);
    fade_and_add(demand.seconds, keep_demand, seconds);
  }
  std::erase_if(demand_, [](const auto& entry) { return entry.second.claims < 1; });
  if (!saturated) return;
  fade_and_add(claims_, keep, ended);
  fade_and_add(saturated_s_, keep, seconds);
}

// Before the server was ever full for a while: as if every token of a claim had to be computed.
double WaitPredictor::claims_per_s() const {
  constexpr double kEnoughSeconds = 1;
  if (saturated_s_ > kEnoughSeconds && claims_ > 0) return claims_ / saturated_s_;
  return step_s_ > 0 ? tokens_ / step_s_ : 0;
}

void WaitPredictor::claimed(const Submission& request) {
  demand_[request.tenant].claims += static_cast<double>(request.max_length);
}

// The margin drifts to where one prediction in 50 is exceeded. What it learned under little load says little
// about more, so that it stays above a least one.
void WaitPredictor::first_token_came(double predicted_s, double took_s) {
  constexpr double kLate = 0.02, kPace = 0.1, kLeast = 1.25, kMost = 10;
  const bool says_something = steps_ > 0 && predicted_s > 4 * step_s_ / steps_;
  if (!says_something) return;
  margin_ *= 1 + kPace * (took_s > likely_s(predicted_s) ? 1 - kLate : -kLate);
  margin_ = std::clamp(margin_, kLeast, kMost);
}

// Part of all claims that end which are this tenant's, as long as it waits: who asks for less than an equal
// share of what is left gets what it asks for, the others get equal shares (max-min fairness).
double WaitPredictor::share_of(const std::string& tenant) const {
  std::vector<double> others;  // parts that they ask for
  for (const auto& [name, demand] : demand_)
    if (name != tenant) others.push_back(demand.claims / std::max(demand.seconds * claims_per_s(), 1e-9));
  std::sort(others.begin(), others.end());
  double left = 1;
  for (size_t i = 0; i < others.size(); ++i) {
    const double equal = left / static_cast<double>(others.size() - i + 1);
    if (others[i] >= equal) return equal;
    left -= others[i];
  }
  return left;
}

double WaitPredictor::first_token_s(const Scheduler& scheduler, const Submission& request) const {
  double rate = claims_per_s();
  if (rate <= 0 || steps_ <= 0) return 0;
  double claims = 0;
  if (!scheduler.has_room(request.prompt_tokens)) {
    const auto ahead = scheduler.claims_ahead(request.priority, request.tenant);
    claims = request.tenant.empty()
                 ? static_cast<double>(ahead.all + request.max_length)
                 : static_cast<double>(ahead.own + request.max_length) / share_of(request.tenant);
  }
  // The step under way, then those of its prompt.
  int64_t chunk = scheduler.options().max_batch_tokens;
  double steps = 0.5 + static_cast<double>((request.prompt_tokens + chunk - 1) / chunk);
  return claims / rate + steps * step_s_ / steps_;
}

}  // namespace tessera::batching
