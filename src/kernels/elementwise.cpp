// Norms, rotary embedding, gates, conversion and addition: rows shared out to threads.
#include <ATen/ops/empty.h>

#include <cmath>

#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

int64_t grain_rows(int64_t width) {
  return std::max<int64_t>(kGrain / std::max<int64_t>(width, 1), 1);
}

void check_same_rows(const Rows& a, const Rows& b, const char* what) {
  TESSERA_REQUIRE(a.count == b.count && a.width == b.width, "{}: {} rows of {} beside {} rows of {}", what,
                  a.count, a.width, b.count, b.width);
}

// Any shape, cut in runs of the last dimension when it is contiguous as a whole.
Rows flat_or_rows(const Tensor& tensor, const char* name) {
  if (tensor.dim() > 1 && !tensor.is_contiguous()) return rows_of(tensor, name);
  return rows_of(tensor.reshape({1, -1}), name);
}

struct Pair {
  Rows a, b;
};
// Both flat when both are contiguous, else both by rows.
Pair alike(const Tensor& a, const Tensor& b, const char* name) {
  TESSERA_REQUIRE(a.sizes() == b.sizes(), "{}: shapes differ, [{}] and [{}]", name, fmt::join(a.sizes(), ", "),
                  fmt::join(b.sizes(), ", "));
  if (a.dim() == 0 || (a.is_contiguous() && b.is_contiguous()))
    return {flat_or_rows(a, name), flat_or_rows(b, name)};
  return {rows_of(a, name), rows_of(b, name)};
}

// Calls row_range(row, rows, first, width) over pieces of a matrix: columns when it is one long row.
void over(const Rows& r, const std::function<void(int64_t, int64_t, int64_t, int64_t)>& piece) {
  if (r.count * r.width == 0) return;
  if (r.count == 1)
    return parallel_ranges(r.width, kGrain,
                           [&](int64_t begin, int64_t end) { piece(0, 1, begin, end - begin); });
  parallel_ranges(r.count, grain_rows(r.width),
                  [&](int64_t begin, int64_t end) { piece(begin, end - begin, 0, r.width); });
}

Source part(const Rows& r, int64_t row, int64_t first) {
  return {static_cast<const char*>(r.at(row)) + first * (r.type == Type::f32 ? 4 : 2), r.type, r.stride};
}
Target part_of(const Rows& r, int64_t row, int64_t first) {
  return {static_cast<char*>(r.at(row)) + first * (r.type == Type::f32 ? 4 : 2), r.type, r.stride};
}

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, double eps, Tensor& y, Tensor& rstd) {
  const HeadRows from = head_rows_of(x, "rms_norm x"), to = head_rows_of(y, "rms_norm y");
  check_shape(weight, {from.width}, "rms_norm weight");
  check_same_rows(from.tokens, to.tokens, "rms_norm");
  float* kept = rstd.defined() ? floats(rstd, "rms_norm rstd") : nullptr;
  TESSERA_REQUIRE(!rstd.defined() || rstd.numel() == from.count(), "rms_norm rstd: expected {} values, got {}",
                  from.count(), rstd.numel());
  const Source scale = rows_of(weight.unsqueeze(0), "rms_norm weight").source();
  parallel_ranges(from.count(), grain_rows(from.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float value =
          table().rms_norm(from.source(row), scale, static_cast<float>(eps), to.target(row), from.width);
      if (kept != nullptr) kept[row] = value;
    }
  });
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd, Tensor& dx,
                       Tensor& dweight) {
  const HeadRows from = head_rows_of(x, "rms_norm x"), gradient = head_rows_of(dy, "rms_norm dy");
  const HeadRows to = head_rows_of(dx, "rms_norm dx");
  check_shape(weight, {from.width}, "rms_norm weight");
  check_shape(dweight, {from.width}, "rms_norm dweight");
  check_same_rows(from.tokens, gradient.tokens, "rms_norm dy");
  check_same_rows(from.tokens, to.tokens, "rms_norm dx");
  const float* kept = floats(rstd, "rms_norm rstd");
  float* sums = floats(dweight, "rms_norm dweight");
  TESSERA_REQUIRE(rstd.numel() == from.count(), "rms_norm rstd: expected {} values, got {}", from.count(),
                  rstd.numel());
  const Source scale = rows_of(weight.unsqueeze(0), "rms_norm weight").source();
  // dweight first: dx may be dy or x.
  parallel_ranges(from.width, 256, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < from.count(); ++row) {
      Source d = gradient.source(row), v = from.source(row);
      d.data = static_cast<const char*>(d.data) + begin * (d.type == Type::f32 ? 4 : 2);
      v.data = static_cast<const char*>(v.data) + begin * (v.type == Type::f32 ? 4 : 2);
      table().rms_norm_dweight(d, v, kept[row], sums + begin, end - begin);
    }
  });
  parallel_ranges(from.count(), grain_rows(from.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      table().rms_norm_dx(gradient.source(row), from.source(row), scale, kept[row], to.target(row), from.width);
  });
}

RopeTable rope_table(std::span<const float> inv_freq, int64_t positions) {
  const int64_t half = static_cast<int64_t>(inv_freq.size());
  RopeTable result{at::empty({positions, half}, at::kFloat), at::empty({positions, half}, at::kFloat)};
  float* cos = floats(result.cos, "cos");
  float* sin = floats(result.sin, "sin");
  for (int64_t position = 0; position < positions; ++position)
    for (int64_t i = 0; i < half; ++i) {
      // The angle is a float32 product, as in Hugging Face's models; its cosine is taken in double, so that the
      // rounded value does not depend on the mathematical library.
      const float angle = static_cast<float>(position) * inv_freq[static_cast<size_t>(i)];
      cos[position * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sin[position * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  return result;
}

void rope(Tensor& x_THE, const Tensor& positions_T, const RopeTable& tables, bool inverse) {
  const HeadRows x = head_rows_of(x_THE, "rope x");
  TESSERA_REQUIRE(x_THE.dim() == 3 && x.width % 2 == 0, "rope x: expected [T, H, E] with even E");
  const int64_t half = x.width / 2, positions = tables.cos.size(0);
  check_shape(positions_T, {x.tokens.count}, "rope positions");
  check_shape(tables.cos, {positions, half}, "rope cos");
  check_shape(tables.sin, {positions, half}, "rope sin");
  const int64_t* at = longs(positions_T, "rope positions");
  const float* cos = floats(tables.cos, "rope cos");
  const float* sin = floats(tables.sin, "rope sin");
  parallel_ranges(x.tokens.count, grain_rows(x.tokens.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      TESSERA_REQUIRE(at[t] >= 0 && at[t] < positions, "rope: position {} is outside the table of {}", at[t],
                      positions);
      table().rope(x.tokens.target(t), cos + at[t] * half, sin + at[t] * half, inverse, x.heads, half);
    }
  });
}

void silu_mul(const Tensor& gate_up, Tensor& out) {
  const Rows from = rows_of(gate_up, "silu_mul gate_up"), to = rows_of(out, "silu_mul out");
  TESSERA_REQUIRE(from.count == to.count && from.width == 2 * to.width,
                  "silu_mul: out has {} rows of {}, gate_up {} of {}", to.count, to.width, from.count,
                  from.width);
  parallel_ranges(to.count, grain_rows(to.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      table().silu_mul(part(from, t, 0), part(from, t, to.width), to.target(t), to.width);
  });
}

void silu_mul_backward(const Tensor& dout, const Tensor& gate_up, Tensor& dgate_up) {
  const Rows from = rows_of(gate_up, "silu_mul gate_up"), gradient = rows_of(dout, "silu_mul dout");
  const Rows to = rows_of(dgate_up, "silu_mul dgate_up");
  const int64_t width = gradient.width;
  TESSERA_REQUIRE(from.count == gradient.count && from.width == 2 * width,
                  "silu_mul: dout has {} rows of {}, gate_up {} of {}", gradient.count, width, from.count,
                  from.width);
  check_same_rows(from, to, "silu_mul dgate_up");
  parallel_ranges(to.count, grain_rows(width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      table().silu_mul_backward(gradient.source(t), part(from, t, 0), part(from, t, width), to.target(t),
                                part_of(to, t, width), width);
  });
}

void add_into(Tensor& into, const Tensor& value) {
  TESSERA_REQUIRE(into.scalar_type() == at::kFloat && value.scalar_type() == at::kFloat,
                  "add_into: expected float32 tensors");
  add_rounded(into, value, into);
}

void add_rounded(const Tensor& a, const Tensor& b, Tensor& out) {
  const bool flat = a.is_contiguous() && b.is_contiguous() && out.is_contiguous();
  TESSERA_REQUIRE(a.sizes() == b.sizes() && a.sizes() == out.sizes(), "add: shapes differ");
  auto view = [&](const Tensor& tensor) {
    return flat ? rows_of(tensor.view({1, -1}), "add") : rows_of(tensor, "add");
  };
  const Rows x = view(a), y = view(b), z = view(out);
  over(z, [&](int64_t row, int64_t rows, int64_t first, int64_t width) {
    table().add(part(x, row, first), part(y, row, first), part_of(z, row, first), rows, width);
  });
}

void convert(const Tensor& from, Tensor& to) {
  const auto [x, y] = alike(from, to, "convert");
  over(x, [&](int64_t row, int64_t rows, int64_t first, int64_t width) {
    table().convert(part(x, row, first), part_of(y, row, first), rows, width);
  });
}

void embedding(const Tensor& weight, const Tensor& tokens, int64_t first, Tensor& out) {
  const Rows rows = rows_of(weight, "embedding weight"), to = rows_of(out, "embedding out");
  check_shape(tokens, {to.count}, "embedding tokens");
  TESSERA_REQUIRE(rows.width == to.width, "embedding: weight is {} wide, out {}", rows.width, to.width);
  const int64_t* token = longs(tokens, "embedding tokens");
  parallel_ranges(to.count, grain_rows(to.width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = token[t] - first;
      if (row >= 0 && row < rows.count)
        table().convert(rows.source(row), to.target(t), 1, to.width);
      else
        std::fill_n(static_cast<char*>(to.at(t)), to.width * (to.type == Type::f32 ? 4 : 2), char{0});
    }
  });
}

void embedding_backward(const Tensor& dout, const Tensor& tokens, int64_t first, Tensor& dweight) {
  const Rows from = rows_of(dout, "embedding dout");
  check_shape(tokens, {from.count}, "embedding tokens");
  TESSERA_REQUIRE(dweight.dim() == 2 && dweight.size(1) == from.width, "embedding dweight: expected {} columns",
                  from.width);
  const int64_t* token = longs(tokens, "embedding tokens");
  float* sums = floats(dweight, "embedding dweight");
  const int64_t rows = dweight.size(0);
  for (int64_t t = 0; t < from.count; ++t) {
    const int64_t row = token[t] - first;
    if (row < 0 || row >= rows) continue;
    float* into = sums + row * from.width;
    table().add(from.source(t), {into, Type::f32, from.width}, {into, Type::f32, from.width}, 1, from.width);
  }
}

}  // namespace tessera::kernels
