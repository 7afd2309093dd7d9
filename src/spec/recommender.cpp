#include "spec/recommender.h"

#include "core/numbers.h"

namespace tessera {
namespace {

// Width that enters the top network.
int64_t interaction_width(const Recommender& model) {
  int64_t bottom = model.bottom.empty() ? model.dense_features : model.bottom.back();
  auto vectors = static_cast<int64_t>(model.tables.size()) + 1;
  if (model.interaction == Interaction::dot) return vectors * (vectors - 1) / 2 + bottom;
  int64_t width = bottom;
  for (const EmbeddingTable& table : model.tables) width += table.dim;
  return width;
}

// Calls visit(in, out) for every matrix of a chain of layers.
template <class Visit>
void for_chain(int64_t in, const std::vector<int64_t>& widths, Visit visit) {
  for (int64_t out : widths) {
    visit(in, out);
    in = out;
  }
}

double cross_matrices(const Recommender& model) {
  if (model.interaction != Interaction::cross) return 0;
  return 2 * real(model.cross_layers * model.cross_rank * interaction_width(model));
}

double matrices(const Recommender& model) {
  double sum = cross_matrices(model);
  auto add = [&](int64_t in, int64_t out) { sum += real(in * out); };
  for_chain(model.dense_features, model.bottom, add);
  for_chain(interaction_width(model), model.top, add);
  return sum;
}

}  // namespace

double embedding_rows(const Recommender& model) {
  double rows = 0;
  for (const EmbeddingTable& table : model.tables) rows += table.rows;
  return rows;
}

double embedding_parameters(const Recommender& model) {
  double sum = 0;
  for (const EmbeddingTable& table : model.tables) sum += table.rows * real(table.dim);
  return sum;
}

double dense_parameters(const Recommender& model) {
  double biases =
      model.interaction == Interaction::cross ? real(model.cross_layers * interaction_width(model)) : 0;
  for (const auto* chain : {&model.bottom, &model.top})
    for (int64_t width : *chain) biases += real(width);
  return matrices(model) + biases;
}

double lookups_per_sample(const Recommender& model) {
  double sum = 0;
  for (const EmbeddingTable& table : model.tables) sum += table.pooling;
  return sum;
}

double dense_flops_per_sample(const Recommender& model) {
  double flops = 2 * matrices(model);
  if (model.interaction != Interaction::dot || model.tables.empty()) return flops;
  double vectors = real(static_cast<int64_t>(model.tables.size()) + 1);
  return flops + vectors * (vectors - 1) * real(model.tables.front().dim);
}

double dense_activations(const Recommender& model) {
  double width = real(interaction_width(model)), sum = real(model.dense_features) + width;
  if (model.interaction == Interaction::cross)
    sum += real(model.cross_layers) * (width + real(model.cross_rank));
  for (const auto* chain : {&model.bottom, &model.top})
    for (int64_t layer : *chain) sum += real(layer);
  return sum;
}

double embedding_bytes_read(const Recommender& model, double bytes_per_element) {
  double elements = 0;
  for (const EmbeddingTable& table : model.tables) elements += table.pooling * real(table.dim);
  return elements * bytes_per_element;
}

double pooled_bytes(const Recommender& model, double bytes_per_element) {
  double elements = 0;
  for (const EmbeddingTable& table : model.tables) elements += real(table.dim);
  return elements * bytes_per_element;
}

double table_bytes(const Recommender& model, double bytes_per_element, double state_bytes_per_row,
                   double overhead_bytes_per_row) {
  return embedding_parameters(model) * bytes_per_element +
         embedding_rows(model) * (state_bytes_per_row + overhead_bytes_per_row);
}

}  // namespace tessera
