// Routing of a mixture of experts, and the copies to and from the experts' rows.
#include <algorithm>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;

int64_t grain_rows(int64_t width) {
  return std::max<int64_t>(kGrain / std::max<int64_t>(width, 1), 1);
}

// The k largest of row[0, count) in descending order; equal ones by ascending index.
void largest(const float* row, int64_t count, int64_t k, int32_t* index) {
  for (int64_t slot = 0; slot < k; ++slot) {
    int64_t best = -1;
    for (int64_t x = 0; x < count; ++x) {
      const bool taken = std::find(index, index + slot, static_cast<int32_t>(x)) != index + slot;
      if (!taken && (best < 0 || row[x] > row[best])) best = x;
    }
    index[slot] = static_cast<int32_t>(best);
  }
}

float total_of(const float* probability, const int32_t* expert, int64_t k) {
  float total = 0;
  for (int64_t slot = 0; slot < k; ++slot) total += probability[expert[slot]];
  return total;
}

struct Slots {
  int64_t tokens, k;
  const int64_t* position;
};

Slots slots_of(const Tensor& position, int64_t rows, const char* name) {
  TESSERA_REQUIRE(position.dim() == 2, "{}: expected position [T, k]", name);
  const Slots slots{position.size(0), position.size(1), longs(position, name)};
  for (int64_t i = 0; i < slots.tokens * slots.k; ++i)
    TESSERA_REQUIRE(slots.position[i] >= 0 && slots.position[i] < rows, "{}: position {} is outside {} rows",
                    name, slots.position[i], rows);
  return slots;
}

// y[t] = sum over k of weight(t, k) * rows[position[t, k]], in float32, rounded once.
template <class Weight>
void weighted_sum(const Rows& rows, const Slots& slots, const Rows& y, const Weight& weight) {
  TESSERA_REQUIRE(rows.width == y.width && slots.tokens == y.count, "combine: {} tokens of {}, y has {} of {}",
                  slots.tokens, rows.width, y.count, y.width);
  parallel_ranges(slots.tokens, grain_rows(y.width * slots.k), [&](int64_t begin, int64_t end) {
    Scratch sum(y.width);
    for (int64_t t = begin; t < end; ++t) {
      std::fill_n(sum.data(), y.width, 0.0f);
      for (int64_t k = 0; k < slots.k; ++k)
        table().add_scaled(rows.source(slots.position[t * slots.k + k]), weight(t, k), sum.data(), y.width);
      table().convert({sum.data(), Type::f32, y.width}, y.target(t), 1, y.width);
    }
  });
}

}  // namespace

void route(const Tensor& logits, int64_t top_k, bool normalize, Tensor& probabilities, Tensor& expert,
           Tensor& weight) {
  TESSERA_REQUIRE(logits.dim() == 2, "route logits: expected [T, X]");
  const int64_t tokens = logits.size(0), experts = logits.size(1);
  TESSERA_REQUIRE(top_k >= 1 && top_k <= experts, "route: top_k {} of {} experts", top_k, experts);
  check_shape(probabilities, {tokens, experts}, "route probabilities");
  check_shape(expert, {tokens, top_k}, "route expert");
  check_shape(weight, {tokens, top_k}, "route weight");
  const float* from = floats(logits, "route logits");
  float* probability = floats(probabilities, "route probabilities");
  float* weights = floats(weight, "route weight");
  int32_t* index = const_cast<int32_t*>(ints(expert, "route expert"));
  parallel_ranges(tokens, grain_rows(experts * top_k), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = probability + t * experts;
      int32_t* chosen = index + t * top_k;
      table().softmax(from + t * experts, row, experts);
      largest(row, experts, top_k, chosen);
      const float total = normalize ? total_of(row, chosen, top_k) : 1.0f;
      for (int64_t k = 0; k < top_k; ++k) weights[t * top_k + k] = row[chosen[k]] / total;
    }
  });
}

// With p the probabilities, s the sum of the chosen ones and w = p / s (w = p without normalisation):
// dp[e_k] = (dw_k - sum_j dw_j w_j) / s, and dlogits = p * (dp - sum_x dp_x p_x).
void route_backward(const Tensor& dweight, const Tensor& dprobabilities, const Tensor& probabilities,
                    const Tensor& expert, const Tensor& weight, bool normalize, Tensor& dlogits) {
  TESSERA_REQUIRE(probabilities.dim() == 2 && expert.dim() == 2, "route_backward: expected [T, X] and [T, k]");
  const int64_t tokens = probabilities.size(0), experts = probabilities.size(1), top_k = expert.size(1);
  check_shape(dweight, {tokens, top_k}, "route dweight");
  check_shape(weight, {tokens, top_k}, "route weight");
  check_shape(dlogits, {tokens, experts}, "route dlogits");
  const float* dw = floats(dweight, "route dweight");
  const float* w = floats(weight, "route weight");
  const float* probability = floats(probabilities, "route probabilities");
  const float* extra = nullptr;
  if (dprobabilities.defined()) {
    check_shape(dprobabilities, {tokens, experts}, "route dprobabilities");
    extra = floats(dprobabilities, "route dprobabilities");
  }
  const int32_t* index = ints(expert, "route expert");
  float* result = floats(dlogits, "route dlogits");
  std::vector<float> dp(static_cast<size_t>(experts));
  for (int64_t t = 0; t < tokens; ++t) {
    const float* p = probability + t * experts;
    const int32_t* chosen = index + t * top_k;
    if (extra != nullptr) std::copy_n(extra + t * experts, experts, dp.begin());
    if (extra == nullptr) std::fill(dp.begin(), dp.end(), 0.0f);
    const float total = normalize ? total_of(p, chosen, top_k) : 1.0f;
    float inner = 0;
    for (int64_t k = 0; normalize && k < top_k; ++k) inner += dw[t * top_k + k] * w[t * top_k + k];
    for (int64_t k = 0; k < top_k; ++k)
      dp[static_cast<size_t>(chosen[k])] += (dw[t * top_k + k] - inner) / total;
    const float mean = table().dot({dp.data(), Type::f32, 0}, {p, Type::f32, 0}, experts);
    for (int64_t x = 0; x < experts; ++x) result[t * experts + x] = p[x] * (dp[static_cast<size_t>(x)] - mean);
  }
}

void gather_rows(const Tensor& x, const Tensor& index, Tensor& out) {
  const Rows from = rows_of(x, "gather_rows x"), to = rows_of(out, "gather_rows out");
  check_shape(index, {to.count}, "gather_rows index");
  TESSERA_REQUIRE(from.width == to.width, "gather_rows: x is {} wide, out {}", from.width, to.width);
  const int64_t* row = longs(index, "gather_rows index");
  parallel_ranges(to.count, grain_rows(to.width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      TESSERA_REQUIRE(row[i] >= 0 && row[i] < from.count, "gather_rows: row {} of {}", row[i], from.count);
      table().convert(from.source(row[i]), to.target(i), 1, to.width);
    }
  });
}

void combine(const Tensor& rows, const Tensor& position, const Tensor& weight, Tensor& y) {
  const Rows from = rows_of(rows, "combine rows");
  const Slots slots = slots_of(position, from.count, "combine position");
  check_shape(weight, {slots.tokens, slots.k}, "combine weight");
  const float* w = floats(weight, "combine weight");
  weighted_sum(from, slots, rows_of(y, "combine y"), [&](int64_t t, int64_t k) { return w[t * slots.k + k]; });
}

void sum_slots(const Tensor& rows, const Tensor& position, Tensor& y) {
  const Rows from = rows_of(rows, "sum_slots rows");
  const Slots slots = slots_of(position, from.count, "sum_slots position");
  weighted_sum(from, slots, rows_of(y, "sum_slots y"), [](int64_t, int64_t) { return 1.0f; });
}

void combine_backward(const Tensor& dy, const Tensor& rows, const Tensor& position, const Tensor& weight,
                      Tensor& drows, Tensor& dweight) {
  const Rows from = rows_of(rows, "combine rows"), gradient = rows_of(dy, "combine dy");
  const Rows to = rows_of(drows, "combine drows");
  const Slots slots = slots_of(position, from.count, "combine position");
  check_shape(weight, {slots.tokens, slots.k}, "combine weight");
  check_shape(dweight, {slots.tokens, slots.k}, "combine dweight");
  TESSERA_REQUIRE(gradient.count == slots.tokens && gradient.width == from.width && to.count == from.count &&
                      to.width == from.width,
                  "combine_backward: dy, rows and drows do not fit together");
  const float* w = floats(weight, "combine weight");
  float* dw = floats(dweight, "combine dweight");
  parallel_ranges(slots.tokens, grain_rows(from.width * slots.k), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * slots.k; i < end * slots.k; ++i) {
      const Source d = gradient.source(i / slots.k);
      dw[i] = table().dot(d, from.source(slots.position[i]), from.width);
      table().scale(d, w[i], to.target(slots.position[i]), from.width);
    }
  });
}

}  // namespace tessera::kernels
