#include "kernels/served_layers.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

int64_t served_grain_rows(int64_t width) {
  return std::max<int64_t>((1 << 14) / std::max<int64_t>(width, 1), 1);
}

// One row, for every row of the other operand.
Source broadcast(const Tensor& vector, int64_t width, const char* name) {
  check_shape(vector, {width}, name);
  return rows_of(vector.unsqueeze(0), name).source();
}

// The k largest of row[0, count), equal ones by ascending index; lowest() marks what may not be chosen.
void best_of(std::vector<float>& row, int64_t k, std::vector<int32_t>& index) {
  index.resize(row.size());
  std::iota(index.begin(), index.end(), 0);
  auto before = [&](int32_t a, int32_t b) {
    const float x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::partial_sort(index.begin(), index.begin() + k, index.end(), before);
  index.resize(static_cast<size_t>(k));
}

// Routes one token at a time, in memory of its own.
class GroupRouter {
 public:
  GroupRouter(const GroupRouting& routing, int64_t experts, int64_t top_k, const float* correction)
      : routing_(routing),
        experts_(experts),
        top_k_(top_k),
        correction_(correction),
        scores_(static_cast<size_t>(experts)),
        choice_(static_cast<size_t>(experts)),
        groups_(static_cast<size_t>(routing.groups)) {}

  void route(const float* logits, int32_t* expert, float* weight) {
    (routing_.sigmoid ? table().sigmoid : table().softmax)(logits, scores_.data(), experts_);
    choice_ = scores_;
    if (correction_ != nullptr)
      for (size_t x = 0; x < choice_.size(); ++x) choice_[x] += correction_[x];
    if (routing_.chosen_groups < routing_.groups) drop_groups();
    best_of(choice_, top_k_, index_);
    float total = 0;
    for (int32_t x : index_) total += scores_[static_cast<size_t>(x)];
    const float divisor = routing_.normalize ? total + 1e-20f : 1.0f;
    for (size_t slot = 0; slot < index_.size(); ++slot) {
      expert[slot] = index_[slot];
      weight[slot] = scores_[static_cast<size_t>(index_[slot])] / divisor * static_cast<float>(routing_.scale);
    }
  }

 private:
  // Experts of groups that are not among the best can not be chosen.
  void drop_groups() {
    const int64_t size = experts_ / routing_.groups;
    for (int64_t g = 0; g < routing_.groups; ++g) {
      constexpr float kLowest = -std::numeric_limits<float>::infinity();
      float best = kLowest, second = kLowest;
      for (int64_t x = g * size; x < (g + 1) * size; ++x) {
        const float score = choice_[static_cast<size_t>(x)];
        second = std::max(second, std::min(best, score));
        best = std::max(best, score);
      }
      groups_[static_cast<size_t>(g)] = routing_.best_two && size > 1 ? best + second : best;
    }
    best_of(groups_, routing_.chosen_groups, index_);
    for (int64_t x = 0; x < experts_; ++x)
      if (std::find(index_.begin(), index_.end(), static_cast<int32_t>(x / size)) == index_.end())
        choice_[static_cast<size_t>(x)] = -std::numeric_limits<float>::infinity();
  }

  const GroupRouting& routing_;
  int64_t experts_, top_k_;
  const float* correction_;
  std::vector<float> scores_, choice_, groups_;
  std::vector<int32_t> index_;
};

}  // namespace

void add_bias(const Tensor& x_TD, const Tensor& bias, Tensor& out_TD) {
  const Rows x = rows_of(x_TD, "add_bias x"), out = rows_of(out_TD, "add_bias out");
  TESSERA_REQUIRE(x.count == out.count && x.width == out.width, "add_bias: shapes differ");
  Source added = broadcast(bias, x.width, "add_bias bias");
  added.stride = 0;
  parallel_ranges(x.count, served_grain_rows(x.width), [&](int64_t begin, int64_t end) {
    table().add(x.source(begin), added, out.target(begin), end - begin, x.width);
  });
}

void layer_norm(const Tensor& x_TD, const Tensor& weight, const Tensor& bias, double eps, Tensor& y_TD) {
  const Rows x = rows_of(x_TD, "layer_norm x"), y = rows_of(y_TD, "layer_norm y");
  TESSERA_REQUIRE(x.count == y.count && x.width == y.width, "layer_norm: shapes differ");
  const Source scale = broadcast(weight, x.width, "layer_norm weight");
  const Source shift = broadcast(bias, x.width, "layer_norm bias");
  parallel_ranges(x.count, served_grain_rows(x.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      table().layer_norm(x.source(t), scale, shift, static_cast<float>(eps), y.target(t), x.width);
  });
}

void activate(const Activation& activation, const Tensor& in, Tensor& out_TF) {
  if (activation.kind == Activation::Kind::silu) return silu_mul(in, out_TF);
  const Rows from = rows_of(in, "activate in"), to = rows_of(out_TF, "activate out");
  TESSERA_REQUIRE(from.count == to.count && from.width == to.width * (activation.gated() ? 2 : 1),
                  "activate: out has {} rows of {}, in {} of {}", to.count, to.width, from.count, from.width);
  parallel_ranges(to.count, served_grain_rows(to.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Source row = from.source(t);
      if (activation.kind == Activation::Kind::swiglu_clamped)
        table().swiglu_clamped(row, shifted(row, to.width), activation.alpha, activation.limit, to.target(t),
                               to.width);
      else if (activation.kind == Activation::Kind::gelu_tanh)
        table().gelu_tanh(row, to.target(t), to.width);
      else
        table().gelu_erf(row, to.target(t), to.width);
    }
  });
}

void route_groups(const Tensor& logits, const Tensor& correction, const GroupRouting& routing, Tensor& expert,
                  Tensor& weight) {
  TESSERA_REQUIRE(logits.dim() == 2 && expert.dim() == 2,
                  "route_groups: expected logits [T, X], expert [T, k]");
  const int64_t tokens = logits.size(0), experts = logits.size(1), top_k = expert.size(1);
  TESSERA_REQUIRE(routing.groups > 0 && experts % routing.groups == 0 && routing.chosen_groups > 0 &&
                      top_k <= experts / routing.groups * std::min(routing.chosen_groups, routing.groups),
                  "route_groups: {} of {} experts in {} of {} groups", top_k, experts, routing.chosen_groups,
                  routing.groups);
  check_shape(expert, {tokens, top_k}, "route_groups expert");
  check_shape(weight, {tokens, top_k}, "route_groups weight");
  if (correction.defined()) check_shape(correction, {experts}, "route_groups correction");
  const float* scores = floats(logits, "route_groups logits");
  const float* added = correction.defined() ? floats(correction, "route_groups correction") : nullptr;
  auto* chosen = const_cast<int32_t*>(ints(expert, "route_groups expert"));
  float* weights = floats(weight, "route_groups weight");
  parallel_ranges(tokens, served_grain_rows(experts), [&](int64_t begin, int64_t end) {
    GroupRouter router(routing, experts, top_k, added);
    for (int64_t t = begin; t < end; ++t)
      router.route(scores + t * experts, chosen + t * top_k, weights + t * top_k);
  });
}

}  // namespace tessera::kernels
