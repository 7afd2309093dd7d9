// What a recommender is for the planner: embedding tables too big for a device, and a dense network too small
// to be the problem. Sizes are counts of elements; `pooling` is ids per sample. Threads: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

struct EmbeddingTable {
  double rows = 0;  // above 2^63 parameters in all, hence no integer products
  int64_t dim = 0;
  double pooling = 1;  // ids of one sample, pooled into one vector
};

enum class Interaction {
  dot,    // DLRM: products of every pair of pooled vectors and the bottom network's result (Naumov et al. 2019)
  cross,  // DCNv2: x0 * (W x + b) + x, W of low rank (Wang et al. 2021)
  concat,  // pooled vectors and dense features side by side
};

struct Recommender {
  std::string name, source;
  std::vector<EmbeddingTable> tables;
  int64_t dense_features = 0;
  std::vector<int64_t> bottom;  // widths of the network over dense features
  Interaction interaction = Interaction::concat;
  int64_t cross_layers = 0, cross_rank = 0;
  std::vector<int64_t> top;  // widths of the network after the interaction, 1 last
};

double embedding_rows(const Recommender& model);
double embedding_parameters(const Recommender& model);
// Biases included.
double dense_parameters(const Recommender& model);
double lookups_per_sample(const Recommender& model);
// Forward, of the dense part; pooling adds one addition per element looked up.
double dense_flops_per_sample(const Recommender& model);
// Outputs of every layer and of the interaction for one sample: what backward needs of the forward pass.
double dense_activations(const Recommender& model);
// Of one sample: rows read, and pooled vectors that travel from the tables to the dense network.
double embedding_bytes_read(const Recommender& model, double bytes_per_element);
double pooled_bytes(const Recommender& model, double bytes_per_element);
// Of all tables with `state_bytes` of optimizer per row (row-wise Adagrad: 4; Adam: 8 * dim) and the index's
// overhead.
double table_bytes(const Recommender& model, double bytes_per_element, double state_bytes_per_row,
                   double overhead_bytes_per_row);

}  // namespace tessera
