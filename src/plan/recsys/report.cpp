#include "plan/report.h"

#include <nlohmann/json.hpp>

#include "plan/recsys/search.h"

namespace tessera::plan::recsys {
namespace {

using nlohmann::json;

// What most of the loser's extra time per sample went into.
std::string why_worse(const Candidate& loser, const Candidate& winner) {
  return fmt::format("{:.0f} % of the first's rate",
                     100 * loser.step.samples_per_s / winner.step.samples_per_s);
}

json layout_json(const Layout& layout) {
  return {{"servers", layout.servers},
          {"workers", layout.workers},
          {"trainers", layout.trainers},
          {"batch", layout.batch},
          {"staleness", layout.staleness},
          {"dense", layout.dense_sync ? "sync" : "async"},
          {"wire_bytes", layout.wire_bytes},
          {"cache_share", layout.cache_share},
          {"sharding", layout.sharding == Sharding::rows ? "rows" : "tables"},
          {"placement", layout.placement == Placement::servers ? "servers" : "trainers"},
          {"text", to_string(layout)}};
}

json trainer_json(const TrainerMemory& m) {
  return {{"dense", m.dense / 1e9},
          {"activations", m.activations / 1e9},
          {"vectors", m.vectors / 1e9},
          {"tables", m.tables / 1e9},
          {"total", m.total() / 1e9}};
}

json result_json(const Request& request, const Candidate& one) {
  json parts;
  for (const Part& part : one.step.parts) parts[part.name] = part.seconds;
  return {{"layout", layout_json(one.layout)},
          {"samples_per_s", one.step.samples_per_s},
          {"samples_per_s_low", one.step.samples_per_s / (1 + request.engine.relative_error)},
          {"samples_per_s_high", one.step.samples_per_s * (1 + request.engine.relative_error)},
          {"step_time_s", one.step.seconds},
          {"batch_latency_s", one.step.latency_s},
          {"bound_by", one.step.bound_by},
          {"step_parts_s", parts},
          {"server_memory_gb", one.step.server_bytes / 1e9},
          {"trainer_memory_gb", trainer_json(one.step.trainer)},
          {"distinct_share", one.ids.distinct / one.ids.ids},
          {"cache_hit_share", one.ids.cache_hit_share},
          {"stale_share", one.stale_share},
          {"loader_cores", one.step.loader_cores},
          {"usd_per_hour", one.step.usd_per_hour},
          {"usd_per_billion_samples", one.usd_per_billion_samples},
          {"kwh_per_billion_samples", one.kwh_per_billion_samples},
          {"mean_kw", one.step.watts / 1000}};
}

std::string details(const Request& request, const Outcome& outcome) {
  const Candidate& best = outcome.ranked.front();
  double rate = best.step.samples_per_s, error = 1 + request.engine.relative_error;
  std::string text =
      fmt::format("\nbest: {}\n  {:.4g} samples/s ({:.3g} to {:.3g}), a step of {}: ", to_string(best.layout),
                  rate, rate / error, rate * error, seconds_text(best.step.seconds));
  for (const Part& part : best.step.parts)
    text += fmt::format("{}{} {}", &part == best.step.parts.data() ? "" : ", ", part.name,
                        seconds_text(part.seconds));
  bool servers = best.layout.placement == Placement::servers;
  const TrainerMemory& trainer = best.step.trainer;
  text += fmt::format(
      "\n  rows: {:.3g} addressed, {:.3g} resident, {:.1f} of {:.0f} GB on the fullest {}; {:.0f} % of a "
      "batch's ids "
      "are distinct\n",
      outcome.storage.virtual_rows, outcome.storage.resident_rows,
      (servers ? best.step.server_bytes : trainer.tables) / 1e9,
      (servers ? request.pools.servers.memory_bytes : request.pools.trainers.device_memory_bytes) / 1e9,
      servers ? "server" : "device", 100 * best.ids.distinct / best.ids.ids);
  text += fmt::format(
      "  a trainer's device holds {:.2f} of {:.0f} GB: dense {:.2f}, activations {:.2f}, vectors {:.2f}, "
      "tables "
      "{:.2f}\n",
      trainer.total() / 1e9, request.pools.trainers.device_memory_bytes / 1e9, trainer.dense / 1e9,
      trainer.activations / 1e9, trainer.vectors / 1e9, trainer.tables / 1e9);
  return text + fmt::format(
                    "  {:.2g} % of look-ups read a row with an update in flight; worker cache answers {:.0f} "
                    "%; loaders "
                    "need {:.0f} cores\n  {:.3g} USD an hour, {:.3g} kW\n",
                    100 * best.stale_share, 100 * best.ids.cache_hit_share, best.step.loader_cores,
                    best.step.usd_per_hour, best.step.watts / 1000);
}

}  // namespace

std::string table(const Request& request, const Outcome& outcome) {
  std::string text =
      fmt::format("{} on {} ({} engine), {} layouts in {}\n", request.work.model.name, request.pools.name,
                  request.engine.name, outcome.evaluated, seconds_text(outcome.seconds));
  if (outcome.ranked.empty()) {
    return text + "nothing fits:\n" + infeasible_text(outcome.infeasible);
  }
  text += fmt::format("{:>3} {:>12} {:>10} {:>10}  {:20} {}\n", "", "samples/s", "USD/G", "kWh/G", "bound by",
                      "layout");
  for (size_t i = 0; i < outcome.ranked.size(); ++i) {
    const Candidate& one = outcome.ranked[i];
    text += fmt::format("{:3} {:12.4g} {:10.3g} {:10.3g}  {:20} {}{}\n", i + 1, one.step.samples_per_s,
                        one.usd_per_billion_samples, one.kwh_per_billion_samples, one.step.bound_by,
                        to_string(one.layout), i == 0 ? "" : "  " + why_worse(one, outcome.ranked[0]));
  }
  return text + details(request, outcome);
}

json to_json(const Request& request, const Outcome& outcome) {
  json out;
  out["results"] = json::array();
  for (const Candidate& one : outcome.ranked) out["results"].push_back(result_json(request, one));
  if (outcome.ranked.empty()) {
    out["infeasible"] = infeasible_json(outcome.infeasible);
  }
  out["rows"] = {{"addressed", outcome.storage.virtual_rows},
                 {"resident", outcome.storage.resident_rows},
                 {"resident_gb", outcome.storage.bytes / 1e9}};
  out["search"] = {{"space", outcome.space},
                   {"evaluated", outcome.evaluated},
                   {"pruned", outcome.pruned},
                   {"seconds", outcome.seconds}};
  json sources = json::array();
  for (const auto* list : {&request.pools.source, &request.engine.source})
    for (const auto& [figure, source] : *list) sources.push_back({{"figure", figure}, {"source", source}});
  out["provenance"] = sources;
  return out;
}

}  // namespace tessera::plan::recsys
