// Attention of a server: gathers the blocks of a sequence, once for several tiles, into the same tiles and
// steps as attention(), so the result of a token equals that of attention() over its whole sequence, bit for
// bit.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/attention_tile.h"
#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

struct Cache {
  const char* data;
  Type type;
  int64_t blocks, block_tokens, heads, head_dim;

  Source at(int64_t slot, int64_t head) const {
    const int64_t element = (slot * heads + head) * head_dim;
    return {data + element * (type == Type::f32 ? 4 : 2), type, head_dim};
  }
};

Cache cache_of(const Tensor& cache, const char* name) {
  TESSERA_REQUIRE(cache.dim() == 4 && cache.is_contiguous(),
                  "{}: expected a contiguous [blocks, block_tokens, K, E]", name);
  return {static_cast<const char*>(cache.numel() == 0 ? nullptr : cache.data_ptr()),
          type_of(cache),
          cache.size(0),
          cache.size(1),
          cache.size(2),
          cache.size(3)};
}

struct Problem {
  Rows q, out;
  int64_t heads, head_dim;
  Cache keys, values;
  const int32_t *sequence, *position, *block_table;
  int64_t sequences, max_blocks;
  float scale;

  int64_t group() const { return heads / keys.heads; }
  int64_t slot(int64_t s, int64_t at) const {
    return block_table[s * max_blocks + at / keys.block_tokens] * keys.block_tokens + at % keys.block_tokens;
  }
  Source query(int64_t t, int64_t h) const {
    const int64_t size = q.type == Type::f32 ? 4 : 2;
    return {static_cast<const char*>(q.at(t)) + h * head_dim * size, q.type, head_dim};
  }
  Target result(int64_t t, int64_t h) const {
    const int64_t size = out.type == Type::f32 ? 4 : 2;
    return {static_cast<char*>(out.at(t)) + h * head_dim * size, out.type, head_dim};
  }
};

// Consecutive tokens of one sequence, few enough that their heads of one group fill a tile.
struct Run {
  int64_t first, count;
};

std::vector<Run> runs_of(const Problem& p) {
  const int64_t most = std::max<int64_t>(kQueryTile / p.group(), 1);
  std::vector<Run> runs;
  for (int64_t t = 0; t < p.q.count; ++t) {
    const bool same = !runs.empty() && runs.back().count < most && p.sequence[t] == p.sequence[t - 1];
    if (same)
      ++runs.back().count;
    else
      runs.push_back({t, 1});
  }
  return runs;
}

void check(const Problem& p) {
  TESSERA_REQUIRE(p.keys.heads > 0 && p.heads % p.keys.heads == 0 && p.keys.head_dim == p.head_dim &&
                      p.keys.block_tokens > 0,
                  "paged_attention: {} heads of {} against a cache of {} heads of {}", p.heads, p.head_dim,
                  p.keys.heads, p.keys.head_dim);
  for (int64_t t = 0; t < p.q.count; ++t) {
    TESSERA_REQUIRE(p.sequence[t] >= 0 && p.sequence[t] < p.sequences, "paged_attention: sequence {} of {}",
                    p.sequence[t], p.sequences);
    TESSERA_REQUIRE(p.position[t] >= 0 && p.position[t] / p.keys.block_tokens < p.max_blocks,
                    "paged_attention: position {} is outside {} blocks of {}", p.position[t], p.max_blocks,
                    p.keys.block_tokens);
    for (int64_t i = 0; i <= p.position[t] / p.keys.block_tokens; ++i) {
      const int32_t block = p.block_table[p.sequence[t] * p.max_blocks + i];
      TESSERA_REQUIRE(block >= 0 && block < p.keys.blocks, "paged_attention: block {} of {}", block,
                      p.keys.blocks);
    }
  }
}

// Keys [first, first + count) of a sequence and kv head, widened from their blocks.
struct Gathered {
  explicit Gathered(int64_t head_dim)
      : rows(kKeyBlock * padded(head_dim)),
        values(kKeyBlock * padded(head_dim)),
        panels(kKeyBlock * head_dim) {}

  void load(const Problem& p, int64_t sequence, int64_t kv, int64_t first, int64_t count) {
    const int64_t width = padded(p.head_dim), block = p.keys.block_tokens;
    for (int64_t i = 0, together = 0; i < count; i += together) {
      together = std::min(block - (first + i) % block, count - i);  // rows of one block
      const int64_t slot = p.slot(sequence, first + i);
      widen(p.keys, slot, kv, together, rows.data() + i * width);
      widen(p.values, slot, kv, together, values.data() + i * width);
    }
    table().pack_transposed({rows.data(), Type::f32, width}, count, p.head_dim, panels.data());
  }

  Scratch rows, values, panels;

 private:
  static void widen(const Cache& cache, int64_t slot, int64_t kv, int64_t count, float* to) {
    const int64_t width = padded(cache.head_dim);
    Source from = cache.at(slot, kv);
    from.stride = cache.heads * cache.head_dim;
    table().convert(from, {to, Type::f32, width}, count, cache.head_dim);
    for (int64_t i = 0; i < count && width > cache.head_dim; ++i)
      std::fill(to + i * width + cache.head_dim, to + (i + 1) * width, 0.0f);
  }
};

// Runs [first, end) of one sequence, for one kv head.
struct Task {
  size_t first, end;
  int64_t kv;
};

// Runs of a sequence share what is gathered: a few of them together, but not so many that threads lack tasks.
std::vector<Task> tasks_of(const Problem& p, const std::vector<Run>& runs) {
  constexpr size_t kTogether = 8;
  std::vector<Task> tasks;
  for (int64_t kv = 0; kv < p.keys.heads; ++kv)
    for (size_t first = 0, end = 0; first < runs.size(); first = end) {
      auto same = [&](size_t i) { return p.sequence[runs[i].first] == p.sequence[runs[first].first]; };
      for (end = first + 1; end < runs.size() && end - first < kTogether && same(end);) ++end;
      tasks.push_back({first, end, kv});
    }
  return tasks;
}

QueryTile tile_of(const Problem& p, const Run& run, int64_t kv) {
  const int64_t group = p.group();
  QueryTile tile(run.count * group, p.head_dim);
  for (int64_t i = 0; i < run.count * group; ++i) {
    const int64_t t = run.first + i / group;
    tile.set_row(i, p.query(t, kv * group + i % group), 0, p.position[t] + 1);
  }
  return tile;
}

void attend(const Problem& p, const std::vector<Run>& runs, const Task& task) {
  const int64_t group = p.group(), sequence = p.sequence[runs[task.first].first];
  std::vector<QueryTile> tiles;
  int64_t last = 0;
  for (size_t i = task.first; i < task.end; ++i) {
    tiles.push_back(tile_of(p, runs[i], task.kv));
    last = std::max(last, tiles.back().last());
  }
  Gathered block(p.head_dim);
  for (int64_t key = 0; key < last; key += kKeyBlock) {
    block.load(p, sequence, task.kv, key, std::min(kKeyBlock, last - key));
    for (QueryTile& tile : tiles)
      if (key < tile.last())
        tile.attend(key, std::min(kKeyBlock, tile.last() - key), block.panels.data(), block.values.data(),
                    p.scale);
  }
  for (size_t i = task.first; i < task.end; ++i)
    for (int64_t r = 0; r < runs[i].count * group; ++r)
      tiles[i - task.first].finish_row(r, p.result(runs[i].first + r / group, task.kv * group + r % group));
}

}  // namespace

void paged_attention(const Tensor& q_THE, const Tensor& k_cache, const Tensor& v_cache,
                     const Tensor& sequence_T, const Tensor& position_T, const Tensor& block_table,
                     double scale, Tensor& out_THE) {
  TESSERA_REQUIRE(q_THE.dim() == 3 && q_THE.sizes() == out_THE.sizes(),
                  "paged_attention: expected q and out [T, H, E]");
  TESSERA_REQUIRE(k_cache.sizes() == v_cache.sizes(), "paged_attention: k and v caches differ in shape");
  TESSERA_REQUIRE(block_table.dim() == 2, "paged_attention: expected block_table [sequences, max_blocks]");
  check_shape(sequence_T, {q_THE.size(0)}, "paged_attention sequence");
  check_shape(position_T, {q_THE.size(0)}, "paged_attention position");
  const Problem p{.q = rows_of(q_THE, "paged_attention q"),
                  .out = rows_of(out_THE, "paged_attention out"),
                  .heads = q_THE.size(1),
                  .head_dim = q_THE.size(2),
                  .keys = cache_of(k_cache, "k_cache"),
                  .values = cache_of(v_cache, "v_cache"),
                  .sequence = ints(sequence_T, "paged_attention sequence"),
                  .position = ints(position_T, "paged_attention position"),
                  .block_table = ints(block_table, "paged_attention block_table"),
                  .sequences = block_table.size(0),
                  .max_blocks = block_table.size(1),
                  .scale = static_cast<float>(scale)};
  check(p);
  const std::vector<Run> runs = runs_of(p);
  const std::vector<Task> tasks = tasks_of(p, runs);
  parallel(std::ssize(tasks), [&](int64_t i) { attend(p, runs, tasks[static_cast<size_t>(i)]); });
}

void write_kv(const Tensor& k_TKE, const Tensor& v_TKE, const Tensor& slot_T, Tensor& k_cache,
              Tensor& v_cache) {
  const Cache keys = cache_of(k_cache, "k_cache"), values = cache_of(v_cache, "v_cache");
  const Rows k = rows_of(k_TKE, "write_kv k"), v = rows_of(v_TKE, "write_kv v");
  const int64_t width = keys.heads * keys.head_dim;
  TESSERA_REQUIRE(
      k.width == width && v.width == width && k.count == v.count && k_cache.sizes() == v_cache.sizes(),
      "write_kv: k has {} rows of {}, v {} of {}, a cache row is {}", k.count, k.width, v.count, v.width,
      width);
  check_shape(slot_T, {k.count}, "write_kv slot");
  const int64_t* slot = longs(slot_T, "write_kv slot");
  for (int64_t t = 0; t < k.count; ++t) {
    TESSERA_REQUIRE(slot[t] >= 0 && slot[t] < keys.blocks * keys.block_tokens, "write_kv: slot {} of {}",
                    slot[t], keys.blocks * keys.block_tokens);
    const Source to_k = keys.at(slot[t], 0), to_v = values.at(slot[t], 0);
    table().convert(k.source(t), {const_cast<void*>(to_k.data), to_k.type, width}, 1, width);
    table().convert(v.source(t), {const_cast<void*>(to_v.data), to_v.type, width}, 1, width);
  }
}

}  // namespace tessera::kernels
