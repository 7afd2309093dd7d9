// Cross-entropy over blocks of the vocabulary, the optimizer's step and the exact norm.
#include <array>
#include <bit>
#include <cmath>

#include "core/exact_sum.h"
#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;

int64_t grain_rows(int64_t width) {
  return std::max<int64_t>(kGrain / std::max<int64_t>(width, 1), 1);
}

Rows logit_rows(const Tensor& logits) {
  const Rows rows = rows_of(logits, "logits");
  TESSERA_REQUIRE(rows.type == Type::f32, "logits: expected float32");
  return rows;
}

float* logit_row(const Rows& rows, int64_t t) {
  return static_cast<float*>(rows.at(t));
}

float* per_token(const Tensor& tensor, int64_t tokens, const char* name) {
  check_shape(tensor, {tokens}, name);
  return floats(tensor, name);
}

}  // namespace

void row_max(const Tensor& logits, Tensor& max) {
  const Rows rows = logit_rows(logits);
  float* result = per_token(max, rows.count, "row_max max");
  parallel_ranges(rows.count, grain_rows(rows.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) result[t] = table().row_max(logit_row(rows, t), rows.width);
  });
}

void row_sum_exp(const Tensor& logits, const Tensor& max, Tensor& sum) {
  const Rows rows = logit_rows(logits);
  const float* largest = per_token(max, rows.count, "row_sum_exp max");
  float* result = per_token(sum, rows.count, "row_sum_exp sum");
  parallel_ranges(rows.count, grain_rows(rows.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      result[t] = table().row_sum_exp(logit_row(rows, t), largest[t], rows.width);
  });
}

void cross_entropy_gradient(Tensor& logits, const Tensor& max, const Tensor& sum, const Tensor& targets,
                            int64_t first, const Tensor& scale) {
  const Rows rows = logit_rows(logits);
  const float* largest = per_token(max, rows.count, "cross_entropy max");
  const float* total = per_token(sum, rows.count, "cross_entropy sum");
  const float* factor = per_token(scale, rows.count, "cross_entropy scale");
  check_shape(targets, {rows.count}, "cross_entropy targets");
  const int64_t* target = longs(targets, "cross_entropy targets");
  parallel_ranges(rows.count, grain_rows(rows.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = logit_row(rows, t);
      const int64_t hot = target[t] - first;
      const bool here = hot >= 0 && hot < rows.width;
      float hot_logit = here ? row[hot] : 0.0f;
      if (here) table().softmax_gradient(&hot_logit, largest[t], total[t], 1.0f, 1);
      table().softmax_gradient(row, largest[t], total[t], factor[t], rows.width);
      if (here) row[hot] = (hot_logit - 1.0f) * factor[t];
    }
  });
}

void adamw(const AdamW& options, double gradient_scale, const Tensor& gradient, Tensor& master, Tensor& m,
           Tensor& v, Tensor& working) {
  TESSERA_REQUIRE(options.step >= 1, "adamw: steps count from 1, got {}", options.step);
  const int64_t count = master.numel();
  TESSERA_REQUIRE(gradient.numel() == count && m.numel() == count && v.numel() == count,
                  "adamw: gradient, m and v need {} elements as the master has", count);
  TESSERA_REQUIRE(gradient.is_contiguous(), "adamw gradient: expected a contiguous tensor");
  float* weight = floats(master, "adamw master");
  float* first = floats(m, "adamw m");
  float* second = floats(v, "adamw v");
  const double step = static_cast<double>(options.step);
  const double correction1 = 1 - std::pow(options.beta1, step), correction2 = 1 - std::pow(options.beta2, step);
  const AdamWStep scalars{.learning_rate = static_cast<float>(options.learning_rate),
                          .beta1 = static_cast<float>(options.beta1),
                          .beta2 = static_cast<float>(options.beta2),
                          .epsilon = static_cast<float>(options.epsilon),
                          .decay = static_cast<float>(1 - options.learning_rate * options.weight_decay),
                          .gradient_scale = static_cast<float>(gradient_scale),
                          .step_size = static_cast<float>(options.learning_rate / correction1),
                          .root_correction = static_cast<float>(1 / std::sqrt(correction2))};
  const Type type = type_of(gradient);
  const char* data = static_cast<const char*>(count == 0 ? nullptr : gradient.data_ptr());
  parallel_ranges(count, kGrain, [&](int64_t begin, int64_t end) {
    table().adamw(scalars, {data + begin * (type == Type::f32 ? 4 : 2), type, 0}, weight + begin, first + begin,
                  second + begin, end - begin);
  });
  if (working.defined() && !working.is_same(master) && working.numel() > 0) {
    Tensor flat = working.view({-1});
    convert(master.view({-1}), flat);
  }
}

// The squares of all values with one exponent are summed as integers, 2^16 at a time (48 + 16 bits), and the
// sums are added to the accumulator: exact as ExactSum, without its cost per element.
void sum_of_squares(const Tensor& values, std::span<int64_t> exact_sum_limbs) {
  TESSERA_REQUIRE(exact_sum_limbs.size() == std::tuple_size_v<ExactSum::Limbs>,
                  "sum_of_squares: expected {} limbs, got {}", std::tuple_size_v<ExactSum::Limbs>,
                  exact_sum_limbs.size());
  const float* value = floats(values, "sum_of_squares values");
  ExactSum exact;
  constexpr int64_t kRun = 1 << 16;
  for (int64_t begin = 0; begin < values.numel(); begin += kRun) {
    std::array<uint64_t, 256> sums{};
    const int64_t end = std::min(begin + kRun, values.numel());
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(value[i]), exponent = bits >> 23 & 0xff;
      const uint64_t mantissa = (bits & 0x7fffff) | (exponent > 0 ? 0x800000u : 0u);
      sums[exponent] += mantissa * mantissa;
      if (exponent == 255) exact.add(static_cast<double>(value[i]) * static_cast<double>(value[i]));
    }
    for (int exponent = 0; exponent < 255; ++exponent) {
      const uint64_t sum = sums[static_cast<size_t>(exponent)];
      const int power = 2 * (std::max(exponent, 1) - 150);  // of the last bit of a square
      exact.add(std::ldexp(static_cast<double>(sum & 0xffffffffu), power));
      exact.add(std::ldexp(static_cast<double>(sum >> 32), power + 32));
    }
  }
  for (size_t i = 0; i < exact_sum_limbs.size(); ++i) exact_sum_limbs[i] += exact.limbs()[i];
}

}  // namespace tessera::kernels
