// Attention of a server: the loops over sequences, heads and blocks of keys around the steps of body/paged.h.
// Tiles of query rows of one sequence and kv head share what is looked up, and what bytes are turned into.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/kv_pages.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kPanels = kKeyBlock / kLanes;

struct Problem {
  Rows q, out;
  int64_t heads, head_dim, window, first;
  const float* sinks;  // [heads] or null
  const KvPages& pages;
  const int32_t *sequence, *position, *block_table;
  int64_t sequences, max_blocks;
  float scale;

  const KvShape& shape() const { return pages.shape(); }
  int64_t group() const { return heads / shape().heads; }
  // The part of a kv head of the block with position `at`.
  const char* head_of(int64_t s, int64_t at, int64_t kv) const {
    const int64_t block = block_table[s * max_blocks + at / shape().block_tokens];
    return reinterpret_cast<const char*>(pages.block(block).data()) + kv * shape().head_bytes();
  }
  Source query(int64_t t, int64_t h) const { return shifted(q.source(t), h * head_dim); }
  Target result(int64_t t, int64_t h) const { return shifted(out.target(t), h * shape().value_dim()); }
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
  const KvShape& shape = p.shape();
  TESSERA_REQUIRE(p.heads % shape.heads == 0 && shape.head_dim == p.head_dim,
                  "paged_attention: {} heads of {} against a cache of {} heads of {}", p.heads, p.head_dim,
                  shape.heads, shape.head_dim);
  TESSERA_REQUIRE(p.q.type == (shape.type == KvType::f32 ? Type::f32 : Type::bf16),
                  "paged_attention: q in another type than pages of {} take", to_string(shape.type));
  std::vector<int64_t> blocks(static_cast<size_t>(p.sequences));  // that each sequence looks at
  for (int64_t t = 0; t < p.q.count; ++t) {
    TESSERA_REQUIRE(p.sequence[t] >= 0 && p.sequence[t] < p.sequences, "paged_attention: sequence {} of {}",
                    p.sequence[t], p.sequences);
    TESSERA_REQUIRE(p.position[t] >= 0 && p.position[t] / shape.block_tokens < p.max_blocks,
                    "paged_attention: position {} is outside {} blocks of {}", p.position[t], p.max_blocks,
                    shape.block_tokens);
    int64_t& most = blocks[static_cast<size_t>(p.sequence[t])];
    most = std::max<int64_t>(most, p.position[t] / shape.block_tokens + 1);
  }
  for (int64_t s = 0; s < p.sequences; ++s)
    for (int64_t i = 0; i < blocks[static_cast<size_t>(s)]; ++i) {
      const int32_t block = p.block_table[s * p.max_blocks + i];
      TESSERA_REQUIRE(block >= 0 && block < p.pages.blocks(), "paged_attention: block {} of {}", block,
                      p.pages.blocks());
    }
}

// Where 128 keys and values of a sequence and kv head lie; bytes are turned into words of bf16 first.
class KeyBlock {
 public:
  explicit KeyBlock(const KvShape& shape)
      : shape_(shape),
        words_(shape.in_bytes() || shape.latent > 0 ? kPanels * (key_words() + value_words()) : 0),
        scales_(shape.in_bytes() ? 2 * kKeyBlock : 0) {}

  void load(const Problem& p, int64_t sequence, int64_t kv, int64_t first, int64_t count) {
    for (int64_t i = 0; i * kLanes < count; ++i) {
      const int64_t at = first + i * kLanes, panel = at % shape_.block_tokens / kLanes;
      const char* head = p.head_of(sequence, at, kv);
      const char* keys = head + panel * shape_.key_panel_bytes();
      const char* values = head + shape_.values_at() + panel * shape_.value_panel_bytes();
      if (shape_.in_bytes()) {
        keys_[i] = words_of(keys, shape_.key_steps(), words_.data() + i * key_words());
        if (shape_.latent == 0) values_[i] = words_of(values, value_words() / kLanes, own_values(i));
        copy_scales(head + shape_.scales_at(), panel, i);
      } else {
        keys_[i] = reinterpret_cast<const float*>(keys);
        values_[i] = reinterpret_cast<const float*>(values);
      }
      if (shape_.latent > 0)
        values_[i] = values_of(keys_[i], std::min(kLanes, count - i * kLanes), own_values(i));
    }
  }

  const float* const* keys() const { return keys_; }
  const float* const* values() const { return values_; }
  const float* key_scale() const { return shape_.in_bytes() ? scales_.data() : nullptr; }
  const float* value_scale() const {
    return shape_.latent > 0 ? key_scale() : shape_.in_bytes() ? scales_.data() + kKeyBlock : nullptr;
  }

 private:
  int64_t key_words() const { return shape_.key_steps() * kLanes; }
  int64_t value_words() const { return shape_.value_steps() * shape_.value_width(); }
  float* own_values(int64_t i) const { return words_.data() + kPanels * key_words() + i * value_words(); }

  // Values that are the beginnings of `tokens` keys, from panels of keys to panels of values; zeros elsewhere.
  const float* values_of(const float* keys, int64_t tokens, float* to) const {
    const int64_t width = shape_.value_width();
    std::fill_n(to, value_words(), 0.0f);
    if (shape_.type == KvType::f32) {
      for (int64_t e = 0; e < shape_.latent; ++e)
        for (int64_t t = 0; t < tokens; ++t) to[t * width + e] = keys[e * kLanes + t];
      return to;
    }
    const auto* from = reinterpret_cast<const uint16_t*>(keys);
    auto* pairs = reinterpret_cast<uint16_t*>(to);
    for (int64_t e = 0; e < shape_.latent; ++e)
      for (int64_t t = 0; t < tokens; ++t)
        pairs[(t / 2 * width + e) * 2 + t % 2] = from[(e / 2 * kLanes + t) * 2 + e % 2];
    return to;
  }

  const float* words_of(const char* bytes, int64_t steps, float* to) const {
    auto* from = reinterpret_cast<const uint8_t*>(bytes);
    (shape_.type == KvType::int8 ? table().words_of_int8 : table().words_of_fp8)(from, steps, to);
    return to;
  }
  void copy_scales(const char* scales, int64_t panel, int64_t i) {
    const auto* from = reinterpret_cast<const float*>(scales) + panel * kLanes;
    std::copy_n(from, kLanes, scales_.data() + i * kLanes);
    if (shape_.latent > 0) return;
    std::copy_n(from + shape_.block_tokens, kLanes, scales_.data() + kKeyBlock + i * kLanes);
  }

  const KvShape& shape_;
  Scratch words_, scales_;
  const float *keys_[kPanels] = {}, *values_[kPanels] = {};
};

// Query rows on their way over the blocks of keys: tokens of a run times heads of a group.
class Tile {
 public:
  Tile(const Problem& p, const Run& run, int64_t kv)
      : p_(p),
        run_(run),
        kv_(kv),
        rows_(run.count * p.group()),
        memory_(rows_ * (steps() + width() + kKeyBlock + kKeyBlock / 2 + 1 + kLanes)),
        begin_(static_cast<size_t>(rows_)),
        end_(static_cast<size_t>(rows_)) {
    float* to = memory_.data();
    auto take = [&](int64_t floats) { return std::exchange(to, to + rows_ * floats); };
    sum_ = take(kLanes);
    scores_ = take(kKeyBlock);
    weights_ = take(kKeyBlock / 2);
    out_ = take(width());
    q_ = take(steps());
    max_ = take(1);
    std::fill_n(sum_, rows_ * kLanes, 0.0f);
    std::fill_n(out_, rows_ * width(), 0.0f);
    std::fill_n(max_, rows_, -std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < rows_; ++r) set_row(r);
  }

  // Keys that some row sees lie in [first, last).
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }

  void attend(int64_t first, const KeyBlock& block) {
    if (first >= last_ || first + kKeyBlock <= first_) return;
    const PagedStep step{.q = q_,
                         .keys_of = block.keys(),
                         .values_of = block.values(),
                         .key_scale = block.key_scale(),
                         .value_scale = block.value_scale(),
                         .rows = rows_,
                         .key_steps = steps(),
                         .width = width(),
                         .first_key = first,
                         .keys = std::min(kKeyBlock, last_ - first),
                         .begin = begin_.data(),
                         .end = end_.data(),
                         .scale = p_.scale,
                         .scores = scores_,
                         .weights = weights_,
                         .out = out_,
                         .max = max_,
                         .sum = sum_};
    (p_.shape().type == KvType::f32 ? table().paged_floats : table().paged_pairs)(step);
  }

  void finish() const {
    for (int64_t r = 0; r < rows_; ++r)
      table().paged_finish(out_ + r * width(), sum_ + r * kLanes, p_.result(token(r), head(r)),
                           p_.shape().value_dim());
  }

 private:
  int64_t steps() const { return p_.shape().key_steps(); }
  int64_t width() const { return p_.shape().value_width(); }
  int64_t token(int64_t r) const { return run_.first + r / p_.group(); }
  int64_t head(int64_t r) const { return kv_ * p_.group() + r % p_.group(); }

  void set_row(int64_t r) {
    const int64_t end = p_.position[token(r)] + 1;
    const int64_t begin = p_.window > 0 ? std::max<int64_t>(end - p_.window, p_.first) : p_.first;
    begin_[static_cast<size_t>(r)] = static_cast<int32_t>(begin);
    end_[static_cast<size_t>(r)] = static_cast<int32_t>(end);
    first_ = r == 0 ? begin : std::min(first_, begin);
    last_ = std::max(last_, end);
    if (p_.sinks != nullptr) {  // as a key that was seen first, with no value
      max_[r] = p_.sinks[head(r)];
      sum_[r * kLanes] = 1;
    }
    float* row = q_ + r * steps();
    row[steps() - 1] = 0;  // an odd width ends with half a word
    const Source q = p_.query(token(r), head(r));
    table().convert(q, {row, q.type, p_.head_dim}, 1, p_.head_dim);
  }

  const Problem& p_;
  Run run_;
  int64_t kv_, rows_;
  Scratch memory_;
  float *q_, *scores_, *weights_, *out_, *max_, *sum_;
  std::vector<int32_t> begin_, end_;
  int64_t first_ = 0, last_ = 0;
};

// Runs [first, end) of one sequence, for one kv head.
struct Task {
  size_t first, end;
  int64_t kv;
};

// Runs of a sequence share a KeyBlock: a few of them together, but not so many that threads lack tasks.
std::vector<Task> tasks_of(const Problem& p, const std::vector<Run>& runs) {
  constexpr size_t kTogether = 8;
  std::vector<Task> tasks;
  for (int64_t kv = 0; kv < p.shape().heads; ++kv)
    for (size_t first = 0, end = 0; first < runs.size(); first = end) {
      auto same = [&](size_t i) { return p.sequence[runs[i].first] == p.sequence[runs[first].first]; };
      for (end = first + 1; end < runs.size() && end - first < kTogether && same(end);) ++end;
      tasks.push_back({first, end, kv});
    }
  return tasks;
}

void attend(const Problem& p, const std::vector<Run>& runs, const Task& task) {
  const int64_t sequence = p.sequence[runs[task.first].first];
  std::vector<Tile> tiles;
  tiles.reserve(task.end - task.first);
  int64_t first = std::numeric_limits<int64_t>::max(), last = 0;
  for (size_t i = task.first; i < task.end; ++i) {
    tiles.emplace_back(p, runs[i], task.kv);
    first = std::min(first, tiles.back().first());
    last = std::max(last, tiles.back().last());
  }
  KeyBlock block(p.shape());
  for (int64_t key = first / kKeyBlock * kKeyBlock; key < last; key += kKeyBlock) {
    block.load(p, sequence, task.kv, key, std::min(kKeyBlock, last - key));
    for (Tile& tile : tiles) tile.attend(key, block);
  }
  for (const Tile& tile : tiles) tile.finish();
}

}  // namespace

void paged_attention(const at::Tensor& q_THE, const KvPages& pages, const at::Tensor& sequence_T,
                     const at::Tensor& position_T, const at::Tensor& block_table, double scale,
                     at::Tensor& out_THE, const PagedOptions& options) {
  TESSERA_REQUIRE(q_THE.dim() == 3 && out_THE.dim() == 3, "paged_attention: expected q and out [T, H, E]");
  check_shape(out_THE, {q_THE.size(0), q_THE.size(1), pages.shape().value_dim()}, "paged_attention out");
  if (options.sinks.defined()) check_shape(options.sinks, {q_THE.size(1)}, "paged_attention sinks");
  TESSERA_REQUIRE(block_table.dim() == 2, "paged_attention: expected block_table [sequences, max_blocks]");
  check_shape(sequence_T, {q_THE.size(0)}, "paged_attention sequence");
  check_shape(position_T, {q_THE.size(0)}, "paged_attention position");
  const Problem p{.q = rows_of(q_THE, "paged_attention q"),
                  .out = rows_of(out_THE, "paged_attention out"),
                  .heads = q_THE.size(1),
                  .head_dim = q_THE.size(2),
                  .window = options.window,
                  .first = options.first,
                  .sinks = options.sinks.defined() ? floats(options.sinks, "paged_attention sinks") : nullptr,
                  .pages = pages,
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

}  // namespace tessera::kernels
