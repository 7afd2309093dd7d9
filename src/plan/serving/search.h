// The space of serving deployments on a number of accelerators: every layout of a worker (tp, pp, attention-DP,
// expert parallelism), workers that do both phases or workers for prompts and workers for answers, and the load
// at which they are run. Closed forms judge all of it; the event simulator adds percentiles to the best.
//
// A candidate must fit and keep the limits; the aim says which is best, by default most tokens per accelerator.
// Without a load the concurrency is part of the search. Threads: one search each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/infeasible.h"
#include "plan/serving/closed_form.h"
#include "plan/serving/objective.h"
#include "plan/serving/predict.h"
#include "plan/serving/simulator.h"

namespace tessera::plan::serving {

struct SearchRequest {
  Blueprint model;
  Accelerator device;
  Engine engine;
  Engine one_phase_engine;  // of workers that do prompts or answers only
  Formats formats;
  Speculation speculation;
  int64_t gpus = 8;
  Traffic traffic;  // concurrency 0 and rate 0: searched
  Aim aim = Aim::rate;
  Limits limits;
  double Percentiles::*percentile =
      nullptr;                         // that the limits are on, by simulation; null: means, by closed form
  std::vector<Request> trace;          // instead of a load; judged by simulation
  std::optional<WorkerLayout> layout;  // only this one, aggregated
  int64_t finalists = 5;               // of which percentiles are simulated
};

struct Candidate {
  bool disaggregated = false;
  WorkerLayout layout, decode_layout;  // aggregated or prefill; decode
  int64_t workers = 1, decode_workers = 0;
  double concurrency = 0;
  Estimate estimate;
  RankMemory memory, decode_memory;
  std::optional<Simulation> simulation;
  std::string not_simulated;  // the reason, where a finalist could not be
  ServingCost cost;           // of an output token, accelerators that no worker uses included
  bool meets = false;         // the limits

  bool same_workers(const Candidate& other) const {
    return disaggregated == other.disaggregated && layout == other.layout &&
           decode_layout == other.decode_layout && workers == other.workers &&
           decode_workers == other.decode_workers;
  }
};

struct SearchOutcome {
  std::vector<Candidate> ranked;     // that meet everything, best first, one per layout
  std::vector<Candidate> front;      // Pareto: tokens/s per accelerator against tokens/s per user, all loads
  std::vector<Candidate> evaluated;  // every point that fits, for pictures
  std::vector<Infeasible> infeasible;
  int64_t space = 0, points = 0, refused = 0;  // layouts, evaluations, evaluations that cannot run
  double seconds = 0;
};

// Errors: a request without accelerators or with contradictory settings.
Result<SearchOutcome> search(const SearchRequest& request);

// Layouts of one worker on at most `gpus` accelerators, degrees powers of two.
std::vector<WorkerLayout> worker_layouts(const Blueprint& model, const Accelerator& device, int64_t gpus);

// Parses "tp=8,ep=8" with keys tp, pp, dp, ep, moe_tp. Errors name the key.
Result<WorkerLayout> parse_worker_layout(const std::string& text);

}  // namespace tessera::plan::serving
