// What "best" means among deployments, and the limits that each must keep. Threads: const, reentrant.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "plan/serving/closed_form.h"
#include "plan/serving/simulator.h"

namespace tessera::plan::serving {

// rate: tokens per second and accelerator. user: time per token. ttft: time to the first token. cost: USD per
// token. energy: J per token.
enum class Aim { rate, user, ttft, cost, energy };
const char* to_string(Aim aim);
Result<Aim> parse_aim(const std::string& text);
// Lower is better.
double aim_value(Aim aim, const Estimate& estimate, const ServingCost& cost);

// "mean", "p50", "p90", "p95" or "p99" -> the member of Percentiles.
Result<double Percentiles::*> parse_percentile(const std::string& name);

struct Limits {  // 0: none
  double ttft_s = 0, tpot_s = 0;
  double least_rate = 0;  // tokens per second and accelerator
  bool kept_by(double ttft, double tpot, double rate) const {
    return (ttft_s <= 0 || ttft <= ttft_s) && (tpot_s <= 0 || tpot <= tpot_s) && rate >= least_rate;
  }
};

}  // namespace tessera::plan::serving
