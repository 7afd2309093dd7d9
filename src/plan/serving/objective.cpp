#include "plan/serving/objective.h"

#include <algorithm>

#include "core/nearest.h"

namespace tessera::plan::serving {

const char* to_string(Aim aim) {
  switch (aim) {
    case Aim::rate:
      return "rate";
    case Aim::user:
      return "user";
    case Aim::ttft:
      return "ttft";
    case Aim::cost:
      return "cost";
    case Aim::energy:
      return "energy";
  }
  return "unknown";
}

Result<Aim> parse_aim(const std::string& text) {
  std::vector<std::string> names;
  for (Aim aim : {Aim::rate, Aim::user, Aim::ttft, Aim::cost, Aim::energy}) {
    if (text == to_string(aim)) return aim;
    names.emplace_back(to_string(aim));
  }
  return invalid(
      "objective '{}': expected rate (tokens/s per GPU), user (tokens/s per user), ttft, cost or energy{}",
      text, did_you_mean(text, names));
}

double aim_value(Aim aim, const Estimate& estimate, const ServingCost& cost) {
  switch (aim) {
    case Aim::rate:
      return 1 / std::max(1e-12, estimate.tokens_per_s_gpu);
    case Aim::user:
      return estimate.tpot_s;
    case Aim::ttft:
      return estimate.ttft_s;
    case Aim::cost:
      return cost.usd;
    case Aim::energy:
      return cost.joules;
  }
  return 0;
}

Result<double Percentiles::*> parse_percentile(const std::string& name) {
  const std::vector<std::pair<std::string, double Percentiles::*>> known = {{"mean", &Percentiles::mean},
                                                                            {"p50", &Percentiles::p50},
                                                                            {"p90", &Percentiles::p90},
                                                                            {"p95", &Percentiles::p95},
                                                                            {"p99", &Percentiles::p99}};
  for (const auto& [key, member] : known)
    if (key == name) return member;
  return invalid("percentile '{}': expected mean, p50, p90, p95 or p99", name);
}

}  // namespace tessera::plan::serving
