#include <ATen/ops/empty.h>

#include <algorithm>
#include <optional>

#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kRowBlock = 192;          // rows of `a` that stay in the second cache
constexpr int64_t kDepthBlock = 256;        // k per pass: a panel of 16 KiB stays in the first cache
constexpr int64_t kPackedFloats = 1 << 19;  // columns of `b` are packed in pieces of 2 MiB
constexpr double kThreadedWork = 1 << 20;   // products of fewer multiply-adds are not worth waking threads

// The left operand as the inner loop reads it: where it lies, or copied.
struct Left {
  std::optional<Scratch> copy;
  const float* data = nullptr;
  int64_t tile = 0, row = 0, k = 0;
};

Left left_rows(const Rows& a) {
  const int64_t tile = table().row_tile;
  Left left;
  if (a.type == Type::f32) {
    left.data = static_cast<const float*>(a.data);
    left.row = a.stride;
  } else {
    left.copy.emplace(a.count * a.width);
    float* to = left.copy->data();
    parallel_ranges(a.count, 64, [&](int64_t begin, int64_t end) {
      table().convert(a.source(begin), {to + begin * a.width, Type::f32, a.width}, end - begin, a.width);
    });
    left.data = to;
    left.row = a.width;
  }
  left.tile = left.row * tile;
  left.k = 1;
  return left;
}

Left left_columns(const Rows& a) {  // a[k, m]
  const int64_t tile = table().row_tile, tiles = (a.width + tile - 1) / tile;
  Left left;
  left.copy.emplace(tiles * tile * a.count + kLanes);
  table().pack_columns(a.source(), a.count, a.width, left.copy->data());
  left.data = left.copy->data();
  left.tile = a.count * tile;
  left.row = 1;
  left.k = tile;
  return left;
}

// Columns [first, first + columns) of the right operand as panels; `buffer` may hold them.
using Panels = std::function<Source(int64_t first, int64_t columns, float* buffer)>;

struct Whole {
  const Left& left;
  int64_t rows, columns, k;
  Rows out;
  bool accumulate;
};

// Rows [row, row + rows) and the columns of `panels`, which begin at `column`.
void block(const Whole& w, int64_t row, int64_t rows, int64_t column, int64_t columns, const Source& panels) {
  const bool direct = w.out.type == Type::f32;
  std::optional<Scratch> rounded;
  if (!direct) rounded.emplace(rows * columns);
  float* c = direct ? static_cast<float*>(w.out.at(row)) + column : rounded->data();
  const int64_t c_row = direct ? w.out.stride : columns;
  const int64_t size = panels.type == Type::f32 ? 4 : 2;
  for (int64_t k = 0; k == 0 || k < w.k; k += kDepthBlock) {
    Source b = panels;
    b.data = static_cast<const char*>(b.data) + k * b.stride * size;
    table().product({.a = w.left.data + row / table().row_tile * w.left.tile + k * w.left.k,
                     .a_tile = w.left.tile,
                     .a_row = w.left.row,
                     .a_k = w.left.k,
                     .b = b,
                     .b_panel = w.k * kLanes,
                     .rows = rows,
                     .columns = columns,
                     .k = std::min(kDepthBlock, w.k - k),
                     .c = c,
                     .c_row = c_row,
                     .accumulate = w.accumulate || k > 0});
  }
  if (direct) return;
  Target to = w.out.target(row);
  to.data = static_cast<char*>(to.data) + column * 2;
  table().convert({c, Type::f32, c_row}, to, rows, columns);
}

void piece(const Whole& w, const Panels& panels, int64_t row, int64_t row_end, int64_t column,
           int64_t column_end) {
  const int64_t step = std::max<int64_t>(kPackedFloats / std::max<int64_t>(w.k, 1) / 96, 1) * 96;
  Scratch buffer(std::min(step, (column_end - column + kLanes) / kLanes * kLanes) * w.k);
  for (; column < column_end; column += step) {
    const int64_t columns = std::min(step, column_end - column);
    const Source packed = panels(column, columns, buffer.data());
    for (int64_t first = row; first < row_end; first += kRowBlock)
      block(w, first, std::min(kRowBlock, row_end - first), column, columns, packed);
  }
}

// Threads take columns first: each packs only its own. Rows are cut where columns are too few.
void run(const Whole& w, const Panels& panels) {
  const double work = static_cast<double>(w.rows) * static_cast<double>(w.columns) * static_cast<double>(w.k);
  const int64_t threads = work < kThreadedWork ? 1 : kernel_threads();
  const int64_t tile = table().row_tile;
  const int64_t wide = (w.columns + 95) / 96, tall = (w.rows + tile - 1) / tile;
  const int64_t across = std::clamp<int64_t>(wide, 1, threads);
  const int64_t down = std::clamp<int64_t>(threads / across, 1, std::max<int64_t>(tall, 1));
  auto row_at = [&](int64_t i) { return std::min(tall * i / down * tile, w.rows); };
  auto column_at = [&](int64_t i) { return std::min(wide * i / across * 96, w.columns); };
  parallel(across * down, [&](int64_t i) {
    piece(w, panels, row_at(i / across), row_at(i / across + 1), column_at(i % across),
          column_at(i % across + 1));
  });
}

Whole whole(const Left& left, int64_t rows, int64_t columns, int64_t k, Tensor& out, bool accumulate) {
  check_shape(out, {rows, columns}, "out of a product");
  TESSERA_REQUIRE(!accumulate || out.scalar_type() == at::kFloat, "accumulating products need float32 out");
  return {left, rows, columns, k, rows_of(out, "out of a product"), accumulate};
}

Rows matrix(const Tensor& tensor, const char* name) {
  TESSERA_REQUIRE(tensor.dim() == 2, "{} of a product: expected 2 dimensions, got {}", name, tensor.dim());
  return rows_of(tensor, name);
}

void check_depth(int64_t a, int64_t b) {
  TESSERA_REQUIRE(a == b, "product: the summed dimensions differ, {} and {}", a, b);
}

Source shifted(Source source, int64_t elements) {
  source.data = static_cast<const char*>(source.data) + elements * (source.type == Type::f32 ? 4 : 2);
  return source;
}

}  // namespace

void gemm_nt(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  check_depth(left.width, right.width);
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  run(whole(operand, left.count, right.count, left.width, out, accumulate),
      [&](int64_t first, int64_t columns, float* buffer) {
        table().pack_transposed(right.source(first), columns, right.width, buffer, Type::f32);
        return Source{buffer, Type::f32, kLanes};
      });
}

void gemm_nn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  check_depth(left.width, right.count);
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  run(whole(operand, left.count, right.width, left.width, out, accumulate),
      [&](int64_t first, int64_t columns, float* buffer) {
        table().pack_rows(shifted(right.source(), first), right.count, columns, buffer, Type::f32);
        return Source{buffer, Type::f32, kLanes};
      });
}

void gemm_tn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  check_depth(left.count, right.count);
  if (out.numel() == 0) return;
  const Left operand = left_columns(left);
  run(whole(operand, left.width, right.width, left.count, out, accumulate),
      [&](int64_t first, int64_t columns, float* buffer) {
        table().pack_rows(shifted(right.source(), first), right.count, columns, buffer, Type::f32);
        return Source{buffer, Type::f32, kLanes};
      });
}

PackedWeight::PackedWeight(const Tensor& weight_NK) {
  const Rows weight = matrix(weight_NK, "packed weight");
  n_ = weight.count;
  k_ = weight.width;
  storage_ = at::empty({(n_ + kLanes - 1) / kLanes, k_, kLanes}, weight_NK.options());
  if (storage_.numel() == 0) return;
  table().pack_transposed(weight.source(), n_, k_, storage_.data_ptr(), weight.type);
}

void gemm_packed(const Tensor& a, const PackedWeight& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a");
  check_depth(left.width, b.k());
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  const Source panels{b.k() == 0 ? nullptr : b.storage().data_ptr(), type_of(b.storage()), kLanes};
  run(whole(operand, left.count, b.n(), b.k(), out, accumulate),
      [&](int64_t first, int64_t, float*) { return shifted(panels, first * b.k()); });
}

}  // namespace tessera::kernels
