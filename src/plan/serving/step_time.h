// Seconds of one engine step of a worker: the sum over layers of products (roofline per format), attention over
// prompts and over the cache, experts (distinct experts touched, hottest rank), elementwise work, collectives
// and fixed costs, plus head, sampling and scheduling. Roofline of Williams et al. 2009 with a smooth maximum;
// the constants are those of the engine.
//
// A StepModel folds model, device and layout into coefficients once, so that a step costs a few dozen
// operations per distinct layer: searches and the event simulator call it millions of times. Threads: const
// functions from any thread.
#pragma once

#include <vector>

#include "plan/serving/deployment.h"
#include "plan/serving/expert_load.h"

namespace tessera::plan::serving {

// Of one attention rank; in a step all dp ranks are taken to be loaded alike.
struct StepLoad {
  double prefill_tokens = 0;
  double prefill_sequences = 0;  // that end in this step and sample
  double prefill_span = 0;       // mean number of tokens that a prefill token attends to, no window
  double decode_sequences = 0;
  double decode_context = 0;  // mean cached tokens of a decoding sequence
};

struct StepBreakdown {
  double products = 0, experts = 0, attention = 0, cache = 0, elementwise = 0;
  double tp = 0, ep = 0, pp = 0, fixed = 0, head = 0;
  // Of all that, for power: seconds in which the multipliers work, and in which the memory does and they wait.
  double multiplying = 0, streaming = 0;
  double total() const;
};

class StepModel {
 public:
  // REQUIRES: check(deployment).ok().
  explicit StepModel(const Deployment& deployment);

  double seconds(const StepLoad& load) const { return breakdown(load).total(); }
  StepBreakdown breakdown(const StepLoad& load) const;

  // Contexts from which on the time of a decode step is a straight line in the context: 0, full windows and
  // full sparse selections.
  std::vector<double> context_bends() const;

 private:
  struct Products {  // of one format: weights [bytes on a rank], FLOPs per token on a rank, rate
    double bytes = 0, flops_per_token = 0, rate = 1;
  };
  struct LayerKind {
    double count = 0;
    Layer layer;
    std::vector<Products> products;
    double expert_bytes = 0;                       // of one expert on a rank
    double expert_flops = 0;                       // per token and expert met, on a rank
    double expert_rate = 1, full_expert_rate = 1;  // with few rows an expert, with many
    double cache_bytes_per_token = 0;              // read on a rank per attended token
    double cache_flops_per_token = 0;
    double prefill_flops_per_pair = 0;  // of a query with one key, on a rank
    double state_bytes = 0;             // of a sequence on a rank, read and written once per token
    double state_flops = 0;             // of a token
    bool has_experts = false;
  };
  void add_kind(const Layer& layer, double count);
  void add_products(const Layer& layer, LayerKind& kind) const;
  void add_mixer(const Mixer& mixer, LayerKind& kind) const;
  void add_layer(const LayerKind& kind, const StepLoad& load, StepBreakdown& sum) const;
  void add_experts(const LayerKind& kind, double tokens, StepBreakdown& sum) const;
  void add_head(const StepLoad& load, StepBreakdown& sum) const;
  // Both times, joined and counted.
  static double roofline(double compute, double memory, double count, StepBreakdown& sum);
  double reduce_seconds(double bytes) const;
  double exchange_seconds(double tokens) const;

  Deployment d_;
  std::vector<LayerKind> kinds_;
  ExpertLoad experts_;
  double memory_rate_ = 1, cache_rate_ = 1, link_rate_ = 1, network_rate_ = 1, attention_rate_ = 1;
  double head_bytes_ = 0, head_flops_ = 0;
};

}  // namespace tessera::plan::serving
