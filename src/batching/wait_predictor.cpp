#include "batching/wait_predictor.h"

#include <cmath>
#include <utility>

namespace tessera::batching {

namespace {

constexpr double kMemorySeconds = 20;

void fade_and_add(double& sum, double keep, double more) {
  sum = sum * keep + more;
}

}  // namespace

void WaitPredictor::step_ended(double seconds, int64_t tokens, bool saturated) {
  double keep = std::exp(-seconds / kMemorySeconds), ended = std::exchange(ended_, 0);
  fade_and_add(tokens_, keep, static_cast<double>(tokens));
  fade_and_add(steps_, keep, 1);
  fade_and_add(step_s_, keep, seconds);
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

double WaitPredictor::first_token_s(const Scheduler& scheduler, const Submission& request) const {
  double rate = claims_per_s();
  if (rate <= 0 || steps_ <= 0) return 0;
  double claims = 0;
  if (!scheduler.has_room(request.prompt_tokens))
    claims = static_cast<double>(scheduler.tokens_ahead(request.priority, request.tenant) + request.max_length);
  // The step under way, then those of its prompt.
  int64_t chunk = scheduler.options().max_batch_tokens;
  double steps = 0.5 + static_cast<double>((request.prompt_tokens + chunk - 1) / chunk);
  return claims / rate + steps * step_s_ / steps_;
}

}  // namespace tessera::batching
