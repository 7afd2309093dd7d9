// Every layout of N processes that a model can be trained in, predicted and ranked. The same search answers an
// engineer's `plan train` and the recovery code's "which layout on the ranks that are left?".
//
// Threads: all functions are reentrant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/cluster.h"
#include "plan/infeasible.h"
#include "plan/memory.h"
#include "plan/step_time.h"

namespace tessera::plan {

struct Prediction {
  Layout layout;
  Work work;  // with this candidate's micro_batch
  StepTime time;
  double step_time_s = 0, step_time_s_low = 0, step_time_s_high = 0;  // 90 % interval
  double tokens_per_s = 0;                                            // of the whole job
  double flops_per_s_per_device = 0;  // model FLOPs: causal attention, no recomputation
  double mfu = 0;                     // of the peak of the precision; 0: peak unknown
  std::vector<MemoryByClass> memory_by_stage;
  double peak_bytes = 0;  // of the fullest rank, reserved bytes not counted
  bool fits = true;
  double tokens() const { return static_cast<double>(work.global_batch * work.seq); }
};

struct Request {
  ModelSpec model;
  Work work;
  Cluster cluster;
  int64_t processes = 1;
  std::optional<Layout> layout;        // only this one
  std::vector<int64_t> micro_batches;  // to try; empty: work.micro_batch only
  bool trainable = true;               // only what the trainer runs today
  bool free_blocks = false;  // tp_blocks and seq_chunks follow the layout instead of `work`: for work that no
                             // run has fixed yet
  int64_t threads = 0;       // kernel threads of a process, 0: cores / processes
};

struct SearchResult {
  std::vector<Prediction> ranked;      // those that fit, fastest first
  std::vector<Infeasible> infeasible;  // when nothing fits
  int64_t space = 0;                   // candidates written down
  int64_t evaluated = 0;               // predicted in full
  int64_t pruned = 0;                  // invalid for this model and work, or too big
  double seconds = 0;
};

// Errors: invalid_argument when the request itself is contradictory (a given layout that does not use N
// processes or is invalid). That nothing fits is a result, not an error.
Result<SearchResult> search(const Request& request);

// One valid layout, predicted.
Prediction predict(const Request& request, const Layout& layout, const Work& work);

// Layouts of equal work on at most `processes` ranks, best first: for recovery on fewer ranks. Uses the largest
// number of ranks for which any layout is valid; ranks left over are spares.
Result<std::vector<Layout>> choose(const ModelSpec& model, const Work& work, const Cluster& cluster,
                                   int64_t processes);

// What takes the largest part of a step: "compute", "tp communication", "pipeline bubble", ...
std::string bound_by(const Prediction& prediction);
// Why `loser` is slower than `winner`: the cause whose seconds grew most.
std::string why_slower(const Prediction& loser, const Prediction& winner);

}  // namespace tessera::plan
