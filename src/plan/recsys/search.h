// The space of layouts of a recommender's trainer on a cluster of pools: hosts of each role, batch, staleness,
// wire precision, worker cache, sharding, rows on servers or on devices. Every one is evaluated; best first,
// one per placement, trainers and batch.
//
// Errors: a request that contradicts itself. That nothing fits is a result. Threads: one search each.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "plan/infeasible.h"
#include "plan/recsys/step.h"

namespace tessera::plan::recsys {

enum class Objective { throughput, cost, energy };
Result<Objective> parse_objective(const std::string& text);

struct Request {
  Work work;
  Pools pools;
  Engine engine;
  Objective objective = Objective::throughput;
  double samples_per_s = 0;      // at least, 0: no demand
  double max_staleness = 16;     // batches
  double batch = 0;              // 0: searched
  double max_batch = 8192;       // of the search: larger ones cost accuracy
  std::optional<Layout> layout;  // only this one
  int64_t top = 10;
};

struct Candidate {
  Layout layout;
  Step step;
  BatchIds ids;
  double usd_per_billion_samples = 0, kwh_per_billion_samples = 0;
  double stale_share = 0;  // of look-ups that read a row with an update in flight
};

struct Outcome {
  std::vector<Candidate> ranked;  // best first, `top` of them
  std::vector<Candidate> found;   // all that fit: the best of each placement, number of trainers and batch
  std::vector<Infeasible> infeasible;
  Storage storage;
  int64_t space = 0, evaluated = 0, pruned = 0;  // pruned: rows do not fit
  double seconds = 0;
};
Result<Outcome> search(const Request& request);

// "servers=30,workers=100,trainers=64,batch=2048,staleness=8,wire=2,cache=0,sharding=rows,dense=sync,
// placement=servers". placement=trainers: no servers and no workers.
Result<Layout> parse_layout(const std::string& text);
std::string to_string(const Layout& layout);

std::string table(const Request& request, const Outcome& outcome);
nlohmann::json to_json(const Request& request, const Outcome& outcome);

}  // namespace tessera::plan::recsys
