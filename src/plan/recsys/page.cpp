#include "plan/recsys/page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "plan/page/page.h"
#include "plan/report.h"

namespace tessera::plan::recsys {
namespace {

using nlohmann::json;

json point_json(const Candidate& one) {
  return {page_number(one.step.usd_per_hour), page_number(one.step.samples_per_s), to_string(one.layout),
          page_number(one.usd_per_billion_samples), one.step.bound_by};
}

json group_json(const Outcome& outcome, Placement placement) {
  json points = json::array();
  for (const Candidate& one : outcome.found)
    if (one.layout.placement == placement) points.push_back(point_json(one));
  return points;
}

// Layouts that no other beats in both money and rate, cheapest first.
json front_json(const Outcome& outcome) {
  std::vector<const Candidate*> order;
  for (const Candidate& one : outcome.found) order.push_back(&one);
  std::sort(order.begin(), order.end(), [](const Candidate* a, const Candidate* b) {
    return std::pair(a->step.usd_per_hour, -a->step.samples_per_s) <
           std::pair(b->step.usd_per_hour, -b->step.samples_per_s);
  });
  json front = json::array();
  double most = 0;
  for (const Candidate* one : order)
    if (one->step.samples_per_s > most) front.push_back(point_json(*one)), most = one->step.samples_per_s;
  return front;
}

// Seconds that each resource needs for a step; the longest is the step.
json needs_json(const Step& step) {
  json names = json::array(), rows = json::array();
  for (const Part& part : step.parts) {
    names.push_back(part.name);
    rows.push_back({page_number(1000 * part.seconds)});
  }
  return {{"names", names}, {"rows", rows}, {"step", page_number(1000 * step.seconds)}};
}

// Per cent of each memory, because a server and a device differ by orders of magnitude.
json memory_json(const Request& request, const Outcome& outcome, const Candidate& best) {
  double device = request.pools.trainers.device_memory_bytes, server = request.pools.servers.memory_bytes;
  const TrainerMemory& m = best.step.trainer;
  json names = {"trainer's device"}, rows = json::array({json::array()});
  for (double bytes : {m.tables, m.dense, m.activations, m.vectors})
    rows[0].push_back(page_number(100 * bytes / device));
  if (best.layout.placement == Placement::servers) {
    names.push_back("embedding server");
    rows.push_back({page_number(100 * best.step.server_bytes / server), 0, 0, 0});
  }
  return {{"parts", {"rows of tables", "dense network", "activations", "vectors in flight"}},
          {"names", names},
          {"rows", rows},
          {"limit", 100 * kMemoryUse},
          {"resident_gb", page_number(outcome.storage.bytes / 1e9)}};
}

// The best layout with every number of batches in flight.
json staleness_json(const Request& request, const Candidate& best) {
  Request one = request;
  one.samples_per_s = 0;
  json points = json::array();
  for (double staleness = 1; staleness <= request.max_staleness; staleness *= 2) {
    one.layout = best.layout;
    one.layout->staleness = staleness;
    if (staleness == 1) one.layout->cache_share = 0;
    auto outcome = search(one);
    if (!outcome.ok() || outcome->ranked.empty()) continue;
    const Candidate& found = outcome->ranked.front();
    points.push_back({staleness, page_number(found.step.samples_per_s), page_number(100 * found.stale_share),
                      found.step.bound_by});
  }
  return points;
}

json plan_json(const Request& request, const Outcome& outcome) {
  json out = {{"servers", group_json(outcome, Placement::servers)},
              {"trainers", group_json(outcome, Placement::trainers)},
              {"front", front_json(outcome)},
              {"usd", json::array()},
              {"kwh", json::array()}};
  for (const Candidate& one : outcome.ranked) {
    out["usd"].push_back(page_number(one.usd_per_billion_samples));
    out["kwh"].push_back(page_number(one.kwh_per_billion_samples));
  }
  if (outcome.ranked.empty()) return out;
  const Candidate& best = outcome.ranked.front();
  out["needs"] = needs_json(best.step);
  out["memory"] = memory_json(request, outcome, best);
  out["staleness"] = staleness_json(request, best);
  return out;
}

std::string tiles(const Request& request, const Outcome& outcome) {
  const Candidate& best = outcome.ranked.front();
  double rate = best.step.samples_per_s, error = 1 + request.engine.relative_error;
  bool servers = best.layout.placement == Placement::servers;
  double held = servers ? best.step.server_bytes : best.step.trainer.total();
  double room = servers ? request.pools.servers.memory_bytes : request.pools.trainers.device_memory_bytes;
  return page_tiles(
      {{"Samples/s", grouped(rate), fmt::format("{} to {}", grouped(rate / error), grouped(rate * error))},
       {"Step of a trainer", seconds_text(best.step.seconds), "bound by " + best.step.bound_by},
       {"Rows", fmt::format("{:.3g}", outcome.storage.resident_rows),
        fmt::format("resident, of {:.3g} addressed", outcome.storage.virtual_rows)},
       {"Memory", grouped(held / 1e9) + " GB",
        fmt::format("of {} GB of the fullest {}", grouped(room / 1e9), servers ? "server" : "device")},
       {"Stale look-ups", fmt::format("{:.2g} %", 100 * best.stale_share),
        "read a row with an update in flight"},
       {"Cost", fmt::format("{:.3g} USD", best.usd_per_billion_samples),
        fmt::format("of a billion samples, {:.3g} USD an hour", best.step.usd_per_hour)},
       {"Energy", fmt::format("{:.3g} kWh", best.kwh_per_billion_samples),
        fmt::format("of a billion samples, {:.3g} kW", best.step.watts / 1000)}});
}

std::string ranking(const Outcome& outcome) {
  std::vector<std::vector<std::string>> rows;
  const Candidate& best = outcome.ranked.front();
  for (size_t i = 0; i < outcome.ranked.size(); ++i) {
    const Candidate& one = outcome.ranked[i];
    rows.push_back(
        {std::to_string(i + 1), to_string(one.layout), grouped(one.step.samples_per_s),
         fmt::format("{:.3g}", one.usd_per_billion_samples), fmt::format("{:.3g}", one.kwh_per_billion_samples),
         fmt::format("{:.2g} %", 100 * one.stale_share), one.step.bound_by,
         i == 0 ? ""
                : fmt::format("{:.0f} % of its rate", 100 * one.step.samples_per_s / best.step.samples_per_s)});
  }
  return page_table({"", "layout", "samples/s", "USD per billion", "kWh per billion", "stale look-ups",
                     "bound by", "against the first"},
                    rows, 2);
}

std::string provenance(const Request& request) {
  std::vector<std::vector<std::string>> rows;
  for (const auto* list : {&request.pools.source, &request.engine.source})
    for (const auto& [figure, source] : *list) rows.push_back({figure, source});
  return page_table({"figure", "source"}, rows, 2);
}

std::string body(const Request& request, const Outcome& outcome) {
  if (outcome.ranked.empty())
    return page_infeasible("Nothing fits", "What the nearest layout misses.", outcome.infeasible);
  return tiles(request, outcome) +
         page_section("Ranking", "Best first, what bounds each, and what it reaches of the first's rate.",
                      ranking(outcome)) +
         page_section(
             "Rate and money",
             "The best layout of each placement, number of trainers and batch; the line joins those that no "
             "other beats. Left is cheaper, high is faster.",
             page_chart("rate-money", "Layouts by rate and money")) +
         page_section(
             "What each resource needs",
             "Of the best layout, for one step of a trainer. They work side by side: the longest is the step, "
             "the dashed line.",
             page_chart("needs", "Milliseconds of each resource for a step")) +
         page_section(
             "What staleness buys",
             "The best layout with other numbers of batches between look-up and update; 1 is synchronous.",
             page_chart("staleness", "Rate by batches in flight")) +
         page_section(
             "Memory",
             "The fullest of each kind, in per cent of what it has; the dashed line is what may be filled.",
             page_chart("memory", "Memory of a device and of a server")) +
         page_section("Cost and energy", "Rented price and power of all hosts, by the numbers of the ranking.",
                      page_chart("money", "Cost and energy of the ranked layouts")) +
         page_section("Where the figures come from", "Change them in a file with [[pool]] of your own.",
                      provenance(request));
}

}  // namespace

std::string recsys_page(const Request& request, const Outcome& outcome) {
  std::string title = fmt::format("{} on {}", request.work.model.name, request.pools.name);
  std::string intro = fmt::format(
      "{} tables, {:.3g} parameters in rows, {:.3g} in the dense network; engine {}; {} layouts in {}. "
      "Predictions; how "
      "far they are from published runs stands in docs/plan_recsys.md.",
      request.work.model.tables.size(), embedding_parameters(request.work.model),
      dense_parameters(request.work.model), request.engine.name,
      grouped(static_cast<double>(outcome.evaluated)), seconds_text(outcome.seconds));
  return page_document(title, intro, body(request, outcome), plan_json(request, outcome), "recsys.js");
}

}  // namespace tessera::plan::recsys
