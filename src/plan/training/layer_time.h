// Time of one layer of one micro-batch on one rank, split by what the time is spent on: the leaf of every
// training prediction. Products come from the blueprint's weights, attention from its mixer, the rest is
// counted in bytes that pass through memory; communication is that of the layout's groups, before any of it is
// hidden.
//
// Tokens are those of a rank: micro_batch * seq / cp. Backward includes what recomputation runs again.
// Threads: const, reentrant.
#pragma once

#include "plan/collectives/collectives.h"
#include "plan/kernels/kernels.h"
#include "plan/training/setup.h"
#include "plan/training/software.h"

namespace tessera::plan {

// Seconds; all of one direction of one micro-batch.
struct LayerTime {
  double products = 0, experts = 0, attention = 0, pointwise = 0;
  double tp = 0, cp = 0, ep = 0;  // communication as if nothing hid it
  double host = 0;                // host time to issue it
  double compute() const { return products + experts + attention + pointwise; }
  LayerTime& operator+=(const LayerTime& other);
};
struct LayerTimes {
  LayerTime forward, backward;
  double parameters = 0;         // of the layer on this rank, experts apart
  double expert_parameters = 0;  // routed experts on this rank
};

// Of the layers, the share that backward computes again in full.
double recomputed_share(const TrainingSetup& setup);

// Adds to the backward of a layer what the layout computes again. A layer's price is the costly part: layouts
// that differ in recomputation only share it.
void add_recomputation(const TrainingSetup& setup, const Layer& layer, LayerTimes& times);

class LayerModel {
 public:
  LayerModel(const TrainingSetup& setup, const GpuCluster& cluster, const SoftwareGeneration& software);

  LayerTimes layer(const Layer& layer) const;
  LayerTimes kept(const Layer& layer) const;  // with nothing computed again
  LayerTimes head() const;                    // final norm, logits, loss
  LayerTimes embedding() const;               // look-up and its gradient

  double tokens() const { return tokens_; }  // of a rank and a micro-batch
  // Bytes that one stage sends to the next for one micro-batch.
  double boundary_bytes() const;

 private:
  struct Pass;  // one direction while it is summed
  MathFormat math(const Weight& weight) const;
  double product_s(const Weight& weight, double out, bool backward) const;
  void add_products(const Layer& layer, LayerTimes& times) const;
  void add_experts(const Layer& layer, LayerTimes& times) const;
  void add_mixing(const Layer& layer, LayerTimes& times) const;
  void add_flash_attention(const Layer& layer, LayerTimes& times) const;
  void add_plain_attention(const Layer& layer, LayerTimes& times) const;
  void add_recurrence(const Layer& layer, LayerTimes& times) const;
  void add_pointwise(const Layer& layer, LayerTimes& times) const;
  void add_casts(const Layer& layer, LayerTimes& times) const;
  void add_tensor_parallel(const Layer& layer, LayerTimes& times) const;
  void add_context_parallel(const Layer& layer, LayerTimes& times) const;
  void add_expert_parallel(const Layer& layer, LayerTimes& times) const;
  void add_host(const Layer& layer, LayerTimes& times) const;

  const TrainingSetup& setup_;
  const GpuCluster& cluster_;
  const SoftwareGeneration& software_;
  Kernels kernels_;
  MathFormat format_;
  double tokens_ = 0;
};

}  // namespace tessera::plan
