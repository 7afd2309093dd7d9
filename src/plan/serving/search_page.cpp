#include "plan/serving/search_page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "plan/page/page.h"
#include "plan/serving/search_report.h"

namespace tessera::plan::serving {
namespace {

using nlohmann::json;

json point_json(const Candidate& c) {
  return {{"user", page_number(c.estimate.tokens_per_s_user)},
          {"gpu", page_number(c.estimate.tokens_per_s_gpu)},
          {"running", page_number(c.estimate.running)},
          {"disaggregated", c.disaggregated},
          {"name", describe(c)}};
}

// Of both kinds of workers where prompts and answers are apart.
json memory_json(std::span<const Candidate> ranked) {
  json names = json::array(), rows = json::array();
  auto add = [&](const std::string& name, const RankMemory& m) {
    names.push_back(name);
    rows.push_back({page_number(m.weights / 1e9), page_number(m.workspace / 1e9), page_number(m.cache / 1e9)});
  };
  for (size_t i = 0; i < ranked.size(); ++i) {
    std::string name = std::to_string(i + 1);
    add(ranked[i].disaggregated ? name + " prompts" : name, ranked[i].memory);
    if (ranked[i].disaggregated) add(name + " answers", ranked[i].decode_memory);
  }
  return {{"parts", {"weights", "workspace", "cache"}}, {"names", std::move(names)}, {"rows", std::move(rows)}};
}

json times_json(std::span<const Candidate> ranked) {
  json rows = json::array();
  for (const Candidate& c : ranked) {
    json row = json::array();
    for (const StepPart& part : step_parts())
      row.push_back(page_number(1000 * c.estimate.decode_step.*part.seconds));
    rows.push_back(std::move(row));
  }
  json names = json::array();
  for (const StepPart& part : step_parts()) names.push_back(part.words);
  return {{"parts", std::move(names)}, {"rows", std::move(rows)}};
}

json plan_json(const SearchRequest& request, const SearchOutcome& outcome, std::span<const Candidate> ranked) {
  json points = json::array(), front = json::array(), usd = json::array(), joules = json::array();
  // A browser draws some thousands of points at once; beyond that every n-th is shown.
  size_t stride = outcome.evaluated.size() / 4000 + 1;
  for (size_t i = 0; i < outcome.evaluated.size(); i += stride)
    points.push_back(point_json(outcome.evaluated[i]));
  for (const Candidate& c : outcome.front) front.push_back(point_json(c));
  for (const Candidate& c : ranked)
    usd.push_back(page_number(1e6 * c.cost.usd)), joules.push_back(page_number(c.cost.joules));
  return {{"points", std::move(points)},
          {"front", std::move(front)},
          {"capacity", page_number(request.device.memory_bytes / 1e9)},
          {"memory", memory_json(ranked)},
          {"time", times_json(ranked)},
          {"money", {{"usd", std::move(usd)}, {"joules", std::move(joules)}}}};
}

std::string tiles(const Candidate& best) {
  const Estimate& e = best.estimate;
  std::vector<PageTile> list = {
      {"Tokens/s per accelerator", grouped(e.tokens_per_s_gpu), fmt::format("{} at once", grouped(e.running))},
      {"Tokens/s per user", grouped(e.tokens_per_s_user), fmt::format("{:.2f} ms per token", 1000 * e.tpot_s)},
      {"First token", fmt::format("{} ms", grouped(1000 * e.ttft_s)),
       e.saturated ? "mean, near full load: may be far longer" : "mean"},
      {"Cost", fmt::format("{:.3g} USD", 1e6 * best.cost.usd), "per million output tokens"},
      {"Energy", fmt::format("{:.3g} J", best.cost.joules),
       fmt::format("per output token; {:.0f} W a GPU", best.cost.watts)},
      {"Carbon", fmt::format("{} g CO2e", grouped(1e6 * best.cost.co2_g)), "per million output tokens"}};
  if (best.simulation)
    list.push_back({"First token, p99", fmt::format("{} ms", grouped(1000 * best.simulation->ttft_s.p99)),
                    fmt::format("simulated; per token {:.2f} ms", 1000 * best.simulation->tpot_s.p99)});
  return page_tiles(list);
}

std::string ranking(std::span<const Candidate> ranked) {
  std::vector<std::vector<std::string>> rows;
  for (const Candidate& c : ranked) {
    const Estimate& e = c.estimate;
    rows.push_back({std::to_string(rows.size() + 1), describe(c) + (e.saturated ? " (near full load)" : ""),
                    grouped(e.running), grouped(e.tokens_per_s_gpu), grouped(1000 * e.ttft_s),
                    fmt::format("{:.2f}", 1000 * e.tpot_s), fmt::format("{:.1f}", e.tokens_per_s_user),
                    fmt::format("{:.3g}", 1e6 * c.cost.usd), fmt::format("{:.3g}", c.cost.joules),
                    bound_of(e.decode_step)});
  }
  return page_table({"", "workers", "requests", "tokens/s per accelerator", "TTFT ms", "TPOT ms",
                     "tokens/s per user", "USD per M tokens", "J per token", "longest part"},
                    rows, 2);
}

std::string body(const SearchOutcome& outcome, std::span<const Candidate> ranked) {
  std::string cloud = page_section("Throughput against speed for a user",
                                   "Every deployment at every load is a point; the line is the front.",
                                   page_chart("pareto", "Deployments by throughput and speed for a user"));
  if (ranked.empty())
    return page_infeasible("Nothing meets the request", "What the nearest deployment misses.",
                           outcome.infeasible) +
           cloud;
  return tiles(ranked.front()) + cloud +
         page_section("The best that meet the objectives",
                      "Workers that do both phases, or prompts -> answers.", ranking(ranked)) +
         page_section("Memory of one accelerator",
                      "By the numbers of the table; the dashed line is what an accelerator has.",
                      page_chart("memory", "Memory by weights, workspace and cache")) +
         page_section("Time of a decode step", "At the load of the table.",
                      page_chart("time", "Time of a decode step by cause")) +
         page_section(
             "Cost and energy",
             "Rented price of all accelerators; power by what they do, with host, network and cooling.",
             page_chart("money", "Cost and energy of the ranked deployments"));
}

}  // namespace

std::string search_page(const SearchRequest& request, const SearchOutcome& outcome, int64_t top) {
  size_t rows = std::min(outcome.ranked.size(), static_cast<size_t>(std::max<int64_t>(0, top)));
  std::span<const Candidate> ranked(outcome.ranked.data(), rows);
  std::string title = fmt::format("{} on {} x {}", request.model.name,
                                  grouped(static_cast<double>(request.gpus)), request.device.name);
  std::string intro = fmt::format(
      "{}; {:.0f} tokens in, {:.0f} out; {} deployments, {} points evaluated in {:.2f} s. Means of a closed "
      "form; "
      "typical errors stand in docs/accuracy_serving.md.",
      request.engine.version.empty() ? request.engine.name : request.engine.name + " " + request.engine.version,
      request.traffic.input_tokens, request.traffic.output_tokens, outcome.space, outcome.points,
      outcome.seconds);
  return page_document(title, intro, body(outcome, ranked), plan_json(request, outcome, ranked), "serving.js");
}

}  // namespace tessera::plan::serving
