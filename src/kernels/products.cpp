#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "kernels/gemm_experts.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kRowBlock = 192;          // rows of `a` that stay in the second cache
constexpr int64_t kDepthBlock = 256;        // steps of k per pass: a panel of 16 KiB stays in the first cache
constexpr int64_t kPackedFloats = 1 << 19;  // columns of `b` are packed in pieces of 2 MiB
constexpr double kThreadedWork = 1 << 20;   // products of fewer multiply-adds are not worth waking threads

// Steps of the chain over k: floats, or words of two bf16.
int64_t steps_of(int64_t k, Type type) {
  return type == Type::f32 ? k : (k + 1) / 2;
}

// The left operand as the inner loop reads it, in floats or words: where it lies, or copied.
struct Left {
  std::optional<Scratch> copy;
  const float* data = nullptr;
  int64_t tile = 0, row = 0, k = 0;
};

Left left_rows(const Rows& a) {
  Left left;
  left.data = static_cast<const float*>(a.data);
  left.row = a.stride;
  if (a.type == Type::bf16) {
    const bool in_words = a.width % 2 == 0 && a.stride % 2 == 0 && reinterpret_cast<uintptr_t>(a.data) % 4 == 0;
    left.row = in_words ? a.stride / 2 : steps_of(a.width, a.type);
    if (!in_words) {
      left.copy.emplace(a.count * left.row);
      left.data = left.copy->data();
      std::fill_n(left.copy->data(), a.count * left.row, 0.0f);
      for (int64_t r = 0; r < a.count; ++r)
        std::memcpy(left.copy->data() + r * left.row, a.at(r), static_cast<size_t>(a.width) * 2);
    }
  }
  left.tile = left.row * table().row_tile;
  left.k = 1;
  return left;
}

Left left_columns(const Rows& a) {  // a[k, m]
  const int64_t tile = table().row_tile, tiles = (a.width + tile - 1) / tile, steps = steps_of(a.count, a.type);
  Left left;
  left.copy.emplace(tiles * tile * steps + kLanes);
  left.tile = steps * tile;
  parallel_ranges(tiles, std::max<int64_t>(kPackedFloats / 8 / std::max<int64_t>(left.tile, 1), 1),
                  [&](int64_t begin, int64_t end) {
                    const int64_t columns = std::min(end * tile, a.width) - begin * tile;
                    table().pack_columns(shifted(a.source(), begin * tile), a.count, columns,
                                         left.copy->data() + begin * left.tile);
                  });
  left.data = left.copy->data();
  left.row = 1;
  left.k = tile;
  return left;
}

// Columns [first, first + columns) of the right operand as panels; `buffer` may hold them.
using Panels = std::function<const float*(int64_t first, int64_t columns, float* buffer)>;

struct Whole {
  const Left& left;
  Type type;  // of both operands
  int64_t rows, columns, steps;
  Rows out;
  bool accumulate;
};

// Rows [row, row + rows) and the columns of `panels`, which begin at `column`. The chain goes on from pass to
// pass in `out`, or beside it when that is bf16: only the last pass rounds.
void block(const Whole& w, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* panels) {
  const Target out = shifted(w.out.target(row), column);
  std::optional<Scratch> exact;
  if (out.type == Type::bf16 && w.steps > kDepthBlock) exact.emplace(rows * columns);
  Target sum = exact ? Target{exact->data(), Type::f32, columns} : out;
  for (int64_t k = 0; k == 0 || k < w.steps; k += kDepthBlock) {
    const bool last = k + kDepthBlock >= w.steps;
    const Product product{.a = w.left.data + row / table().row_tile * w.left.tile + k * w.left.k,
                          .a_tile = w.left.tile,
                          .a_row = w.left.row,
                          .a_k = w.left.k,
                          .b = panels + k * kLanes,
                          .b_panel = w.steps * kLanes,
                          .b_k = kLanes,
                          .rows = rows,
                          .columns = columns,
                          .k = std::min(kDepthBlock, w.steps - k),
                          .start = w.accumulate || k > 0 ? static_cast<const float*>(sum.data) : nullptr,
                          .start_row = sum.stride,
                          .c = last ? out : sum};
    (w.type == Type::f32 ? table().product : table().product_pairs)(product);
  }
}

void piece(const Whole& w, const Panels& panels, int64_t row, int64_t row_end, int64_t column,
           int64_t column_end) {
  const int64_t step = std::max<int64_t>(kPackedFloats / std::max<int64_t>(w.steps, 1) / 96, 1) * 96;
  Scratch buffer(std::min(step, (column_end - column + kLanes) / kLanes * kLanes) * w.steps);
  for (; column < column_end; column += step) {
    const int64_t columns = std::min(step, column_end - column);
    const float* packed = panels(column, columns, buffer.data());
    for (int64_t first = row; first < row_end; first += kRowBlock)
      block(w, first, std::min(kRowBlock, row_end - first), column, columns, packed);
  }
}

// Threads take columns first: each packs only its own. Rows are cut where columns are too few.
void run(const Whole& w, const Panels& panels) {
  const double work =
      static_cast<double>(w.rows) * static_cast<double>(w.columns) * static_cast<double>(w.steps);
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

Rows matrix(const Tensor& tensor, const char* name) {
  TESSERA_REQUIRE(tensor.dim() == 2, "{} of a product: expected 2 dimensions, got {}", name, tensor.dim());
  return rows_of(tensor, name);
}

// `k` is the summed dimension as each operand has it.
Whole whole(const Left& left, Type a, Type b, int64_t rows, int64_t columns, std::pair<int64_t, int64_t> k,
            Tensor& out, bool accumulate) {
  TESSERA_REQUIRE(k.first == k.second, "product: the summed dimensions differ, {} and {}", k.first, k.second);
  TESSERA_REQUIRE(a == b, "product: the operands differ in type");
  check_shape(out, {rows, columns}, "out of a product");
  TESSERA_REQUIRE(!accumulate || out.scalar_type() == at::kFloat, "accumulating products need float32 out");
  return {left, a, rows, columns, steps_of(k.first, a), rows_of(out, "out of a product"), accumulate};
}

// Panels from b[k, n].
Panels panels_of_rows(const Rows& b) {
  return [b](int64_t first, int64_t columns, float* buffer) {
    table().pack_rows(shifted(b.source(), first), b.count, columns, buffer);
    return buffer;
  };
}

}  // namespace

void gemm_nt(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  run(whole(operand, left.type, right.type, left.count, right.count, {left.width, right.width}, out,
            accumulate),
      [&](int64_t first, int64_t columns, float* buffer) {
        table().pack_transposed(right.source(first), columns, right.width, buffer);
        return buffer;
      });
}

void gemm_nn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  run(whole(operand, left.type, right.type, left.count, right.width, {left.width, right.count}, out,
            accumulate),
      panels_of_rows(right));
}

void gemm_tn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a"), right = matrix(b, "b");
  if (out.numel() == 0) return;
  const Left operand = left_columns(left);
  run(whole(operand, left.type, right.type, left.width, right.width, {left.count, right.count}, out,
            accumulate),
      panels_of_rows(right));
}

PackedWeight::PackedWeight(const Tensor& weight_NK) {
  const Rows weight = matrix(weight_NK, "packed weight");
  n_ = weight.count;
  k_ = weight.width;
  const int64_t halves = weight.type == Type::f32 ? 1 : 2;
  storage_ =
      at::empty({(n_ + kLanes - 1) / kLanes, steps_of(k_, weight.type), kLanes * halves}, weight_NK.options());
  if (storage_.numel() == 0) return;
  table().pack_transposed(weight.source(), n_, k_, static_cast<float*>(storage_.data_ptr()));
}

void gemm_packed(const Tensor& a, const PackedWeight& b, Tensor& out, bool accumulate) {
  const Rows left = matrix(a, "a");
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  const Type type = type_of(b.storage());
  const float* panels = b.k() == 0 ? nullptr : static_cast<const float*>(b.storage().data_ptr());
  run(whole(operand, left.type, type, left.count, b.n(), {left.width, b.k()}, out, accumulate),
      [&](int64_t first, int64_t, float*) { return panels + first * steps_of(b.k(), type); });
}

namespace {

// One thread's share of a product of many: rows [row, row + rows) against columns of one weight.
struct ExpertPiece {
  const PackedWeight* weight;
  int64_t row, rows, column, end;
};

std::vector<ExpertPiece> expert_pieces(std::span<const int64_t> first,
                                       std::span<const PackedWeight* const> weights) {
  constexpr double kPiecesPerThread = 4;
  auto work_of = [](int64_t rows, int64_t columns) {  // a few rows cost as much as reading the weight
    return rows == 0 ? 0.0 : static_cast<double>(std::max<int64_t>(rows, 4) * columns);
  };
  double work = 0;
  for (size_t e = 0; e < weights.size(); ++e) work += work_of(first[e + 1] - first[e], weights[e]->n());
  const double share = work / (static_cast<double>(kernel_threads()) * kPiecesPerThread);
  std::vector<ExpertPiece> pieces;
  for (size_t e = 0; e < weights.size(); ++e) {
    const int64_t rows = first[e + 1] - first[e], n = weights[e]->n(), wide = (n + 95) / 96;
    if (rows == 0 || n == 0) continue;
    const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(work_of(rows, n) / share + 0.5), 1, wide);
    for (int64_t i = 0; i < count; ++i)
      pieces.push_back(
          {weights[e], first[e], rows, wide * i / count * 96, std::min(wide * (i + 1) / count * 96, n)});
  }
  return pieces;
}

}  // namespace

void gemm_experts(const Tensor& rows, std::span<const int64_t> first,
                  std::span<const PackedWeight* const> weights, Tensor& out) {
  TESSERA_REQUIRE(!weights.empty() && first.size() == weights.size() + 1 && first.front() == 0 &&
                      first.back() == rows.size(0) && std::ranges::is_sorted(first),
                  "gemm_experts: {} bounds for {} weights", first.size(), weights.size());
  const Rows left = matrix(rows, "rows");
  if (out.numel() == 0) return;
  const Left operand = left_rows(left);
  const Type type = type_of(weights[0]->storage());
  for (const PackedWeight* weight : weights)
    TESSERA_REQUIRE(
        weight->n() == weights[0]->n() && weight->k() == weights[0]->k() && type_of(weight->storage()) == type,
        "gemm_experts: weights of different shapes or types");
  const Whole all =
      whole(operand, left.type, type, left.count, weights[0]->n(), {left.width, weights[0]->k()}, out, false);
  const std::vector<ExpertPiece> pieces = expert_pieces(first, weights);
  parallel(std::ssize(pieces), [&](int64_t i) {
    const ExpertPiece& p = pieces[static_cast<size_t>(i)];
    Left own{.copy = {},
             .data = operand.data + p.row * operand.row,
             .tile = operand.tile,
             .row = operand.row,
             .k = operand.k};
    Rows to = all.out;
    to.data = all.out.at(p.row);
    to.count = p.rows;
    const Whole part{own, all.type, p.rows, all.columns, all.steps, to, false};
    const auto* panels = static_cast<const float*>(p.weight->storage().data_ptr());
    piece(
        part, [&](int64_t column, int64_t, float*) { return panels + column * all.steps; }, 0, p.rows, p.column,
        p.end);
  });
}

}  // namespace tessera::kernels
