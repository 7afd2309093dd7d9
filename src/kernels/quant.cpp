#include "kernels/quant.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/cpu_level.h"
#include "kernels/kernels.h"
#include "kernels/quant_table.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kRowsAtOnce = 96;        // activations that stay in the second cache while columns pass by
constexpr int64_t kPiecesPerThread = 6;    // so that a slower core ends with the others
constexpr double kThreadedWork = 1 << 18;  // multiply-adds that are worth waking threads

// Activations of a product: int8 [rows, groups * 32] with a scale and a sum for each group.
class Activations {
 public:
  Activations(int64_t rows, int64_t width, int64_t blocks)
      : rows_(rows),
        width_(width / blocks),
        blocks_(blocks),
        groups_((width_ + kQuantGroup - 1) / kQuantGroup),
        q_(rows * row_bytes() / 4),
        scale_(rows * row_groups()),
        sum_(rows * row_groups()) {}

  int64_t row_groups() const { return blocks_ * groups_; }
  int64_t row_bytes() const { return row_groups() * kQuantGroup; }

  void set(int64_t row, const float* x) {
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t at = row * row_groups() + block * groups_;
      quant_table().quantize_row(x + block * width_, width_, q() + at * kQuantGroup, scale_.data() + at,
                                 sums() + at);
    }
  }

  // `rows` of them from `row` on, against a tile of block `block`.
  QuantTile tile(int64_t row, int64_t rows, int64_t block, const uint8_t* weight, float* out) const {
    const int64_t at = row * row_groups() + block * groups_;
    return {.weight = weight,
            .groups = groups_,
            .a = q() + at * kQuantGroup,
            .a_scale = scale_.data() + at,
            .a_sum = sums() + at,
            .rows = rows,
            .a_row = row_bytes(),
            .a_group_row = row_groups(),
            .out = out};
  }

 private:
  int8_t* q() const { return reinterpret_cast<int8_t*>(q_.data()); }
  int32_t* sums() const { return reinterpret_cast<int32_t*>(sum_.data()); }

  int64_t rows_, width_, blocks_, groups_;
  Scratch q_, scale_, sum_;
};

void quantize_rows(const Rows& x, Activations& to) {
  parallel_ranges(x.count, std::max<int64_t>((1 << 14) / std::max<int64_t>(x.width, 1), 1),
                  [&](int64_t begin, int64_t end) {
                    Scratch row(x.width);
                    for (int64_t i = begin; i < end; ++i) {
                      const bool direct = x.type == Type::f32;
                      if (!direct) table().convert(x.source(i), {row.data(), Type::f32, x.width}, 1, x.width);
                      to.set(i, direct ? static_cast<const float*>(x.at(i)) : row.data());
                    }
                  });
}

// space[blocks, rows, 16]: one panel against rows [row, row + rows), block by block.
void panel_blocks(const Activations& a, int64_t row, int64_t rows, const QuantWeight& weight, int64_t panel,
                  float* space) {
  const QuantTable& level = quant_table();
  auto product = weight.kind() == QuantKind::int8          ? level.tile_int8
                 : weight.kind() == QuantKind::int4        ? level.tile_int4
                 : weight.kind() == QuantKind::int4_offset ? level.tile_int4_offset
                                                           : level.tile_int4_zero;
  const int64_t size = rows * kQuantPanel;
  for (int64_t block = 0; block < weight.blocks(); ++block)
    product(a.tile(row, rows, block, weight.tile(panel, block), space + block * size));
}

// As panel_blocks, and the blocks added by the tree: the sum is in the first.
void panel_product(const Activations& a, int64_t row, int64_t rows, const QuantWeight& weight, int64_t panel,
                   float* space) {
  panel_blocks(a, row, rows, weight, panel, space);
  const int64_t size = rows * kQuantPanel, blocks = weight.blocks();
  for (int64_t step = 1; step < blocks; step *= 2)
    for (int64_t block = 0; block + step < blocks; block += 2 * step) {
      const Source left{space + block * size, Type::f32, size},
          right{space + (block + step) * size, Type::f32, size};
      table().add(left, right, {space + block * size, Type::f32, size}, 1, size);
    }
}

// One thread's share: rows of one expert against panels of a weight.
struct Piece {
  const QuantWeight* weight;
  int64_t row, rows, first_panel, end_panel, column;  // column of out where panel 0 begins
};

int64_t panels_of(const QuantWeight& weight) {
  return (weight.n() + kQuantPanel - 1) / kQuantPanel;
}

// Cuts (rows, weight) pairs into pieces of about equal work.
class Pieces {
 public:
  void add(const QuantWeight& weight, int64_t row, int64_t rows, int64_t column) {
    if (rows == 0 || weight.n() == 0) return;
    whole_.push_back({&weight, row, rows, 0, panels_of(weight), column});
    work_ += work_of(whole_.back());
  }

  void run(const std::function<void(const Piece&)>& task) const {
    if (work_ < kThreadedWork || kernel_threads() == 1) {
      for (const Piece& piece : whole_) task(piece);
      return;
    }
    std::vector<Piece> pieces;
    const double share = work_ / static_cast<double>(kernel_threads() * kPiecesPerThread);
    for (const Piece& piece : whole_) {
      const double wanted = std::ceil(work_of(piece) / share);
      const int64_t panels = piece.end_panel,
                    count = std::clamp<int64_t>(static_cast<int64_t>(wanted), 1, panels);
      for (int64_t i = 0; i < count; ++i) {
        pieces.push_back(piece);
        pieces.back().first_panel = panels * i / count;
        pieces.back().end_panel = panels * (i + 1) / count;
      }
    }
    parallel(std::ssize(pieces), [&](int64_t i) { task(pieces[static_cast<size_t>(i)]); });
  }

 private:
  // A few rows cost as much as reading the weight.
  static double work_of(const Piece& piece) {
    return static_cast<double>(std::max<int64_t>(piece.rows, 4)) *
           static_cast<double>((piece.end_panel - piece.first_panel) * kQuantPanel * piece.weight->k());
  }
  std::vector<Piece> whole_;
  double work_ = 0;
};

// Calls done(row, rows, panel, values [rows, 16]) for all of a piece, after product(), one of the two above.
template <class Done>
void for_panels(const Activations& a, const Piece& piece, decltype(panel_product)* product, const Done& done) {
  Scratch space(std::min(kRowsAtOnce, piece.rows) * kQuantPanel * piece.weight->blocks());
  for (int64_t row = 0; row < piece.rows; row += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, piece.rows - row);
    for (int64_t panel = piece.first_panel; panel < piece.end_panel; ++panel) {
      product(a, piece.row + row, rows, *piece.weight, panel, space.data());
      done(piece.row + row, rows, panel, space.data());
    }
  }
}

void store_columns(const Rows& out, int64_t row, int64_t rows, int64_t column, int64_t count,
                   const float* values) {
  table().convert({values, Type::f32, kQuantPanel}, shifted(out.target(row), column), rows, count);
}

void multiply(const Activations& a, const Pieces& pieces, const Rows& out) {
  pieces.run([&](const Piece& piece) {
    for_panels(a, piece, panel_product, [&](int64_t row, int64_t rows, int64_t panel, const float* values) {
      const int64_t first = panel * kQuantPanel, count = std::min(kQuantPanel, piece.weight->n() - first);
      store_columns(out, row, rows, piece.column + first, count, values);
    });
  });
}

// out[block][row]: each block of k apart.
void multiply_blocks(const Activations& a, const Pieces& pieces, std::span<const Rows> out) {
  pieces.run([&](const Piece& piece) {
    for_panels(a, piece, panel_blocks, [&](int64_t row, int64_t rows, int64_t panel, const float* values) {
      const int64_t first = panel * kQuantPanel, count = std::min(kQuantPanel, piece.weight->n() - first);
      for (const Rows& part : out) {
        store_columns(part, row, rows, piece.column + first, count, values);
        values += rows * kQuantPanel;
      }
    });
  });
}

struct Experts {
  std::span<const int64_t> first;
  std::span<const QuantFfn> ffns;
  int64_t rows(size_t e) const { return first[e + 1] - first[e]; }
};

// act[rows, F] = silu(gate) * up
void gate_up(const Activations& a, const Experts& experts, const Rows& act) {
  Pieces pieces;
  for (size_t e = 0; e < experts.ffns.size(); ++e)
    pieces.add(experts.ffns[e].gate, experts.first[e], experts.rows(e), static_cast<int64_t>(e));
  pieces.run([&](const Piece& piece) {
    const QuantWeight& up_weight = experts.ffns[static_cast<size_t>(piece.column)].up;
    Scratch up(std::min(kRowsAtOnce, piece.rows) * kQuantPanel * up_weight.blocks());
    for_panels(a, piece, panel_product, [&](int64_t row, int64_t rows, int64_t panel, float* gate) {
      panel_product(a, row, rows, up_weight, panel, up.data());
      const Source g{gate, Type::f32, 0}, u{up.data(), Type::f32, 0};
      table().silu_mul(g, u, {gate, Type::f32, 0}, rows * kQuantPanel);
      const int64_t column = panel * kQuantPanel;
      store_columns(act, row, rows, column, std::min(kQuantPanel, act.width - column), gate);
    });
  });
}

void check_ffn(const QuantFfn& ffn, const QuantFfn& first, const Rows& rows, const Rows& out) {
  TESSERA_REQUIRE(ffn.gate.k() == rows.width && ffn.up.k() == rows.width && ffn.gate.n() == ffn.down.k() &&
                      ffn.up.n() == ffn.gate.n() && ffn.down.n() == out.width,
                  "ffn_quant: gate [{}, {}], up [{}, {}] and down [{}, {}] against rows of {} and out of {}",
                  ffn.gate.n(), ffn.gate.k(), ffn.up.n(), ffn.up.k(), ffn.down.n(), ffn.down.k(), rows.width,
                  out.width);
  TESSERA_REQUIRE(ffn.gate.n() == first.gate.n() && ffn.gate.blocks() == first.gate.blocks() &&
                      ffn.up.blocks() == first.gate.blocks() && ffn.down.blocks() == first.down.blocks(),
                  "ffn_quant: experts of unequal shape");
}

const QuantTable& choose() {
  const CpuLevel level = cpu_level();
  if (level >= CpuLevel::avx512 && quant_table_named("avx512vnni")) return avx512vnni_quant_table;
  if (level >= CpuLevel::avx2 && quant_table_named("avx2")) return avx2_quant_table;
  return generic_quant_table;
}

}  // namespace

const QuantTable* quant_table_named(const char* name) {
  const bool avx2 = cpu_has(CpuLevel::avx2) && __builtin_cpu_supports("f16c");
  const bool vnni = avx2 && cpu_has(CpuLevel::avx512) && __builtin_cpu_supports("avx512vnni");
  if (std::strcmp(name, "generic") == 0) return &generic_quant_table;
  if (std::strcmp(name, "avx2") == 0 && avx2) return &avx2_quant_table;
  if (std::strcmp(name, "avx512vnni") == 0 && vnni) return &avx512vnni_quant_table;
  return nullptr;
}

const QuantTable& quant_table() {
  static const QuantTable& chosen = choose();
  return chosen;
}

const char* quant_isa() {
  return quant_table().name;
}

void gemm_quant(const at::Tensor& a, std::span<const QuantWeight> weights, at::Tensor& out) {
  TESSERA_REQUIRE(!weights.empty(), "gemm_quant without a weight");
  const Rows from = rows_of(a, "gemm_quant a"), to = rows_of(out, "gemm_quant out");
  int64_t columns = 0;
  for (const QuantWeight& weight : weights) {
    TESSERA_REQUIRE(weight.k() == from.width && weight.blocks() == weights[0].blocks(),
                    "gemm_quant: a weight [{}, {}] in {} blocks against rows of {} in {} blocks", weight.n(),
                    weight.k(), weight.blocks(), from.width, weights[0].blocks());
    columns += weight.n();
  }
  check_shape(out, {from.count, columns}, "gemm_quant out");
  if (out.numel() == 0) return;
  Activations activations(from.count, from.width, weights[0].blocks());
  quantize_rows(from, activations);
  Pieces pieces;
  int64_t column = 0;
  for (const QuantWeight& weight : weights) {
    pieces.add(weight, 0, from.count, column);
    column += weight.n();
  }
  multiply(activations, pieces, to);
}

namespace {

// The result as one matrix for each block of `down`, or one for all.
std::vector<Rows> parts_of(const at::Tensor& out, int64_t blocks) {
  if (out.dim() != 3) return {rows_of(out, "ffn_quant out")};
  TESSERA_REQUIRE(out.size(0) == blocks, "ffn_quant: out for {} blocks, the weight has {}", out.size(0),
                  blocks);
  std::vector<Rows> parts;
  for (int64_t block = 0; block < blocks; ++block)
    parts.push_back(rows_of(out.select(0, block), "ffn_quant out"));
  return parts;
}

}  // namespace

void ffn_quant(const at::Tensor& rows, std::span<const int64_t> first, std::span<const QuantFfn> experts,
               at::Tensor& out) {
  TESSERA_REQUIRE(!experts.empty() && first.size() == experts.size() + 1 && first.front() == 0 &&
                      std::ranges::is_sorted(first),
                  "ffn_quant: {} bounds for {} experts", first.size(), experts.size());
  const Rows from = rows_of(rows, "ffn_quant rows");
  const std::vector<Rows> to = parts_of(out, experts[0].down.blocks());
  TESSERA_REQUIRE(first.back() == from.count && to[0].count == from.count,
                  "ffn_quant: {} rows, {} in bounds, {} out", from.count, first.back(), to[0].count);
  for (const QuantFfn& ffn : experts) check_ffn(ffn, experts[0], from, to[0]);
  if (from.count == 0) return;
  const Experts all{first, experts};
  const int64_t width = experts[0].gate.n();
  Scratch act(from.count * width);
  const Rows act_rows{act.data(), Type::f32, from.count, width, width};
  {
    Activations activations(from.count, from.width, experts[0].gate.blocks());
    quantize_rows(from, activations);
    gate_up(activations, all, act_rows);
  }
  Activations activations(from.count, width, experts[0].down.blocks());
  quantize_rows(act_rows, activations);
  Pieces pieces;
  for (size_t e = 0; e < experts.size(); ++e) pieces.add(experts[e].down, first[e], all.rows(e), 0);
  if (out.dim() == 3) return multiply_blocks(activations, pieces, to);
  multiply(activations, pieces, to[0]);
}

}  // namespace tessera::kernels
