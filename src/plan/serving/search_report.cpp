#include "plan/serving/search_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tessera::plan::serving {
namespace {

constexpr StepPart kParts[] = {
    {"products", "products with weights", &StepBreakdown::products},
    {"experts", "experts", &StepBreakdown::experts},
    {"attention", "attention over prompts", &StepBreakdown::attention},
    {"cache", "reading keys and values", &StepBreakdown::cache},
    {"elementwise", "elementwise passes", &StepBreakdown::elementwise},
    {"tp", "tensor-parallel all-reduce", &StepBreakdown::tp},
    {"ep", "exchange of experts' tokens", &StepBreakdown::ep},
    {"pp", "sends between stages", &StepBreakdown::pp},
    {"fixed", "fixed costs of the engine", &StepBreakdown::fixed},
    {"head", "head and sampling", &StepBreakdown::head},
};

nlohmann::json layout_json(const WorkerLayout& layout) {
  return {{"tp", layout.tp},
          {"pp", layout.pp},
          {"dp", layout.dp},
          {"ep", layout.moe_ep},
          {"moe_tp", layout.moe_tp}};
}

nlohmann::json memory_json(const RankMemory& memory) {
  return {{"weights", memory.weights / 1e9},
          {"workspace", memory.workspace / 1e9},
          {"cache", memory.cache / 1e9},
          {"available", memory.total / 1e9}};
}

nlohmann::json percentiles_json(const Percentiles& p) {
  return {{"mean", 1000 * p.mean},
          {"p50", 1000 * p.p50},
          {"p90", 1000 * p.p90},
          {"p95", 1000 * p.p95},
          {"p99", 1000 * p.p99}};
}

// As those of a published closed loop on known engines.
Interval interval_of(const Candidate& c, const std::string& name) {
  ServingCase like;
  like.disaggregated = c.disaggregated;
  return Intervals::built_in().find(interval_key(like, c.estimate, name));
}

void put(nlohmann::json& out, const std::string& name, double value, const Candidate& c) {
  Interval interval = interval_of(c, name);
  out[name] = value;
  out[name + "_low"] = value * interval.low;
  out[name + "_high"] = value * interval.high;
}

nlohmann::json candidate_json(const Candidate& c) {
  const Estimate& e = c.estimate;
  nlohmann::json out;
  out["mode"] = c.disaggregated ? "disaggregated" : "aggregated";
  out["layout"] = layout_json(c.layout);
  out["workers"] = c.disaggregated ? nlohmann::json{{"prefill", c.workers}, {"decode", c.decode_workers}}
                                   : nlohmann::json{{"both", c.workers}};
  if (c.disaggregated) out["decode_layout"] = layout_json(c.decode_layout);
  put(out, "ttft_ms", 1000 * e.ttft_s, c);
  put(out, "tpot_ms", 1000 * e.tpot_s, c);
  put(out, "tok_s_gpu", e.tokens_per_s_gpu, c);
  out["tok_s_user"] = e.tokens_per_s_user;
  out["concurrency"] = e.running;
  out["saturated"] = e.saturated;
  out["memory_gb"] = memory_json(c.memory);
  if (c.disaggregated) out["decode_memory_gb"] = memory_json(c.decode_memory);
  out["breakdown_ms"] = breakdown_ms(e.decode_step);
  out["bound"] = bound_of(e.decode_step);
  if (c.disaggregated) out["transfer_ms"] = 1000 * e.transfer_s;
  out["cost_usd_per_mtok"] = 1e6 * c.cost.usd;
  out["energy_j_per_token"] = c.cost.joules;
  out["co2_g_per_mtok"] = 1e6 * c.cost.co2_g;
  out["power_w_gpu"] = c.cost.watts;
  if (c.simulation)
    out["simulated"] = {{"ttft_ms", percentiles_json(c.simulation->ttft_s)},
                        {"tpot_ms", percentiles_json(c.simulation->tpot_s)},
                        {"requests", c.simulation->requests},
                        {"preemptions", c.simulation->preemptions},
                        {"within_objectives", c.simulation->within_deadlines},
                        {"tok_s_gpu", c.simulation->tokens_per_s_gpu}};
  if (!c.not_simulated.empty()) out["not_simulated"] = c.not_simulated;
  out["provenance"] = {
      "step time: roofline with constants fitted on published rows (data/serving/engines.toml)",
      "accelerator: data sheet (plan/data/gpus)"};
  return out;
}

// What a request of the loser takes more of in a decode step than one of the best.
std::string why_worse(Aim aim, const Candidate& c, const Candidate& best) {
  const Estimate &mine = c.estimate, &first = best.estimate;
  const StepPart* most = nullptr;
  double growth = 0;
  for (const StepPart& part : kParts) {
    double more = mine.decode_step.*part.seconds / std::max(1.0, mine.running) -
                  first.decode_step.*part.seconds / std::max(1.0, first.running);
    if (more > growth) most = &part, growth = more;
  }
  double ratio = aim_value(aim, c.estimate, c.cost) / std::max(1e-30, aim_value(aim, first, best.cost));
  const char* words = aim == Aim::rate     ? "less"
                      : aim == Aim::user   ? "slower for a user"
                      : aim == Aim::ttft   ? "later"
                      : aim == Aim::energy ? "more energy"
                                           : "dearer";
  double percent = 100 * (aim == Aim::rate ? 1 - 1 / ratio : ratio - 1);
  return fmt::format("; {:.0f} % {}{}", percent, words, most ? fmt::format(", most in {}", most->words) : "");
}

// Near full load the first token waits in a queue whose length no mean says: the interval stands instead.
std::string ttft_text(const Candidate& c) {
  double ms = 1000 * c.estimate.ttft_s;
  if (!c.estimate.saturated) return fmt::format("{:.0f}", ms);
  Interval interval = interval_of(c, "ttft_ms");
  return fmt::format("{:.0f}-{:.0f}", ms * interval.low, ms * interval.high);
}

std::string table_row(Aim aim, size_t rank, const Candidate& c, const Candidate& best) {
  const Estimate& e = c.estimate;
  return fmt::format("{:>3} {:<44} {:>8.0f} {:>9.1f} {:>11} {:>8.2f} {:>8.1f} {:>8.2f} {:>7.3g}  {}{}{}\n",
                     rank, describe(c), e.running, e.tokens_per_s_gpu, ttft_text(c), 1000 * e.tpot_s,
                     e.tokens_per_s_user, 1e6 * c.cost.usd, c.cost.joules, bound_of(e.decode_step),
                     rank == 1 ? "" : why_worse(aim, c, best), e.saturated ? ", near full load" : "");
}

std::string interval_text(const Candidate& c) {
  auto range = [&](const char* name, double value) {
    Interval interval = interval_of(c, name);
    return fmt::format("{:.4g} to {:.4g}", value * interval.low, value * interval.high);
  };
  return fmt::format(
      "best, in 90 of 100 published rows: {} tok/s/GPU, TTFT {} ms, TPOT {} ms\n"
      "figures: engine constants fitted on published rows (docs/accuracy_serving.md), accelerator by its data "
      "sheet\n",
      range("tok_s_gpu", c.estimate.tokens_per_s_gpu), range("ttft_ms", 1000 * c.estimate.ttft_s),
      range("tpot_ms", 1000 * c.estimate.tpot_s));
}

}  // namespace

std::span<const StepPart> step_parts() {
  return kParts;
}

nlohmann::json breakdown_ms(const StepBreakdown& step) {
  nlohmann::json out = nlohmann::json::object();
  for (const StepPart& part : kParts) out[part.key] = 1000 * (step.*part.seconds);
  return out;
}

std::string bound_of(const StepBreakdown& step) {
  const StepPart* largest = &kParts[0];
  for (const StepPart& part : kParts)
    if (step.*part.seconds > step.*largest->seconds) largest = &part;
  return largest->words;
}

std::string describe(const Candidate& c) {
  std::string front = fmt::format("{} x {}", c.workers, to_string(c.layout));
  return c.disaggregated ? fmt::format("{} -> {} x {}", front, c.decode_workers, to_string(c.decode_layout))
                         : front;
}

std::string search_table(const SearchRequest& request, const SearchOutcome& outcome, int64_t top) {
  std::string text = fmt::format(
      "{} on {} x {}, {}: {:.0f} tokens in, {:.0f} out; {} layouts, {} points in {:.2f} s\n",
      request.model.name, request.gpus, request.device.name,
      request.engine.version.empty() ? request.engine.name : request.engine.name + " " + request.engine.version,
      request.traffic.input_tokens, request.traffic.output_tokens, outcome.space, outcome.points,
      outcome.seconds);
  if (outcome.ranked.empty()) {
    return text + "nothing meets the request:\n" + infeasible_text(outcome.infeasible);
  }
  text += fmt::format("{:>3} {:<44} {:>8} {:>9} {:>11} {:>8} {:>8} {:>8} {:>7}  {}\n", "", "workers",
                      "requests", "tok/s/GPU", "TTFT ms", "TPOT ms", "tok/s/us", "$/Mtok", "J/token",
                      "longest part of a decode step");
  auto rows = std::min(outcome.ranked.size(), static_cast<size_t>(std::max<int64_t>(0, top)));
  for (size_t i = 0; i < rows; ++i)
    text += table_row(request.aim, i + 1, outcome.ranked[i], outcome.ranked.front());
  const Candidate& best = outcome.ranked.front();
  text += interval_text(best);
  if (!best.not_simulated.empty()) text += fmt::format("not simulated, best: {}\n", best.not_simulated);
  if (best.simulation)
    text += fmt::format(
        "simulated, best: TTFT p50 {:.0f} p90 {:.0f} p99 {:.0f} ms, TPOT p50 {:.2f} p99 {:.2f} ms, {} "
        "requests, {} preemptions\n",
        1000 * best.simulation->ttft_s.p50, 1000 * best.simulation->ttft_s.p90,
        1000 * best.simulation->ttft_s.p99, 1000 * best.simulation->tpot_s.p50,
        1000 * best.simulation->tpot_s.p99, best.simulation->requests, best.simulation->preemptions);
  text += "Pareto front (tok/s per user: tok/s per GPU, workers):\n";
  for (const Candidate& c : outcome.front)
    text += fmt::format("  {:>7.1f}: {:>8.1f}  {}\n", c.estimate.tokens_per_s_user, c.estimate.tokens_per_s_gpu,
                        describe(c));
  return text;
}

nlohmann::json search_json(const SearchRequest& request, const SearchOutcome& outcome, int64_t top) {
  nlohmann::json results = nlohmann::json::array(), front = nlohmann::json::array();
  auto rows = std::min(outcome.ranked.size(), static_cast<size_t>(std::max<int64_t>(0, top)));
  for (size_t i = 0; i < rows; ++i) results.push_back(candidate_json(outcome.ranked[i]));
  for (const Candidate& c : outcome.front) front.push_back(candidate_json(c));
  nlohmann::json out = {{"objective", to_string(request.aim)},
                        {"results", std::move(results)},
                        {"pareto", std::move(front)},
                        {"search",
                         {{"space", outcome.space},
                          {"evaluated", outcome.points},
                          {"pruned", outcome.refused},
                          {"seconds", outcome.seconds}}}};
  if (outcome.ranked.empty()) out["infeasible"] = infeasible_json(outcome.infeasible);
  return out;
}

}  // namespace tessera::plan::serving
