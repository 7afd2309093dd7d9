#include "recsys_train/lookup.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/nearest.h"

namespace tessera::recsys_train {
namespace {

// Factor of the sum over `count` rows.
float factor(Pooling pooling, size_t count) {
  if (pooling == Pooling::sum || count <= 1) return 1;
  auto n = static_cast<double>(count);
  return static_cast<float>(1 / (pooling == Pooling::mean ? n : std::sqrt(n)));
}

std::pair<size_t, size_t> range_of(const std::vector<int64_t>& offsets, size_t row) {
  if (offsets.empty()) return {row, row + 1};
  return {static_cast<size_t>(offsets[row]), static_cast<size_t>(offsets[row + 1])};
}

// out[i * stride ...] for every batch row i: the pooled rows of one slot.
void pool_slot(const std::vector<int32_t>& positions, const std::vector<int64_t>& offsets, Pooling pooling,
               const float* rows, size_t dim, size_t batch_rows, float* out, size_t stride) {
  for (size_t i = 0; i < batch_rows; ++i, out += stride) {
    auto [first, last] = range_of(offsets, i);
    if (first == last) {
      std::fill_n(out, dim, 0.f);
      continue;
    }
    std::copy_n(rows + static_cast<size_t>(positions[first]) * dim, dim, out);
    if (last - first == 1) continue;
    for (size_t k = first + 1; k < last; ++k) {
      const float* row = rows + static_cast<size_t>(positions[k]) * dim;
      for (size_t d = 0; d < dim; ++d) out[d] += row[d];
    }
    if (float scale = factor(pooling, last - first); scale != 1)
      for (size_t d = 0; d < dim; ++d) out[d] *= scale;
  }
}

void unpool_slot(const std::vector<int32_t>& positions, const std::vector<int64_t>& offsets, Pooling pooling,
                 const float* gradient, size_t stride, size_t dim, size_t batch_rows, float* sums) {
  for (size_t i = 0; i < batch_rows; ++i, gradient += stride) {
    auto [first, last] = range_of(offsets, i);
    float scale = factor(pooling, last - first);
    for (size_t k = first; k < last; ++k) {
      float* sum = sums + static_cast<size_t>(positions[k]) * dim;
      for (size_t d = 0; d < dim; ++d) sum[d] += scale * gradient[d];
    }
  }
}

// The last `longest` ids of a row.
std::pair<size_t, size_t> last_of(const std::vector<int64_t>& offsets, size_t row, int64_t longest) {
  auto [first, last] = range_of(offsets, row);
  return {std::max(first, last - std::min(last, static_cast<size_t>(longest))), last};
}

// A row for each id of a sequence, zeros behind its end; and how many there are.
void lay_out_sequence(const std::vector<int32_t>& positions, const std::vector<int64_t>& offsets,
                      int64_t longest, const float* rows, size_t dim, size_t batch_rows, float* out,
                      size_t stride, float* lengths, size_t sequences) {
  for (size_t i = 0; i < batch_rows; ++i, out += stride) {
    auto [first, last] = last_of(offsets, i, longest);
    for (size_t k = first; k < last; ++k)
      std::copy_n(rows + static_cast<size_t>(positions[k]) * dim, dim, out + (k - first) * dim);
    std::fill(out + (last - first) * dim, out + static_cast<size_t>(longest) * dim, 0.f);
    lengths[i * sequences] = static_cast<float>(last - first);
  }
}

void take_back_sequence(const std::vector<int32_t>& positions, const std::vector<int64_t>& offsets,
                        int64_t longest, const float* gradient, size_t stride, size_t dim, size_t batch_rows,
                        float* sums) {
  for (size_t i = 0; i < batch_rows; ++i, gradient += stride) {
    auto [first, last] = last_of(offsets, i, longest);
    for (size_t k = first; k < last; ++k) {
      float* sum = sums + static_cast<size_t>(positions[k]) * dim;
      for (size_t d = 0; d < dim; ++d) sum[d] += gradient[(k - first) * dim + d];
    }
  }
}

}  // namespace

int64_t LookupPlan::num_places() const {
  int64_t places = 0;
  for (size_t slot = 0; slot < slots.size(); ++slot) places += places_of(slot);
  return places;
}

std::vector<SequencePlace> LookupPlan::sequences() const {
  std::vector<SequencePlace> all;
  for (size_t slot = 0; slot < slots.size(); ++slot)
    if (slots[slot].sequence > 0)
      all.push_back(
          {.slot = static_cast<int64_t>(slot), .target = slots[slot].rows_of, .length = slots[slot].sequence});
  return all;
}

Result<Pooling> parse_pooling(std::string_view text) {
  if (text == "sum") return Pooling::sum;
  if (text == "mean") return Pooling::mean;
  if (text == "sqrt-n") return Pooling::sqrt_n;
  return invalid("pooling: got '{}', expected sum, mean or sqrt-n{}", text,
                 did_you_mean(text, {"sum", "mean", "sqrt-n"}));
}

const char* to_string(Pooling pooling) {
  return pooling == Pooling::sum ? "sum" : pooling == Pooling::mean ? "mean" : "sqrt-n";
}

void Deduplicator::clear(Table& table, size_t ids) {
  size_t size = std::bit_ceil(std::max<size_t>(64, 2 * ids));
  if (table.places.size() < size) {
    table.keys.resize(size);
    table.places.assign(size, -1);
  } else {
    for (size_t at : table.used) table.places[at] = -1;
  }
  table.used.clear();
}

int32_t Deduplicator::place_of(Table& table, uint64_t key, std::vector<uint64_t>& keys) {
  const size_t mask = table.places.size() - 1;
  for (size_t at = (key * 0x9e3779b97f4a7c15ULL) >> 20 & mask;; at = (at + 1) & mask) {
    if (table.places[at] < 0) {
      table.keys[at] = key;
      table.places[at] = static_cast<int32_t>(keys.size());
      table.used.push_back(at);
      keys.push_back(key);
      return table.places[at];
    }
    if (table.keys[at] == key) return table.places[at];
  }
}

void Deduplicator::run(const recsys_data::Batch& batch, Lookup& lookup) {
  TESSERA_REQUIRE(batch.slots.size() == plan_.slots.size(), "{} slots in the batch, {} in the plan",
                  batch.slots.size(), plan_.slots.size());
  const auto groups = static_cast<size_t>(plan_.num_groups);
  tables_.resize(groups);
  lookup.batch_rows = batch.rows;
  lookup.groups.resize(groups);
  lookup.positions.resize(plan_.slots.size());
  lookup.offsets.resize(plan_.slots.size());
  std::vector<size_t> ids(groups);
  for (size_t s = 0; s < plan_.slots.size(); ++s)
    ids[static_cast<size_t>(plan_.slots[s].group)] += batch.slots[s].ids.size();
  for (size_t g = 0; g < groups; ++g) {
    clear(tables_[g], ids[g]);
    lookup.groups[g].keys.clear();
  }
  for (size_t s = 0; s < plan_.slots.size(); ++s) {
    auto g = static_cast<size_t>(plan_.slots[s].group);
    auto& positions = lookup.positions[s];
    positions.resize(batch.slots[s].ids.size());
    for (size_t i = 0; i < positions.size(); ++i)
      positions[i] =
          place_of(tables_[g], key_of(plan_.rows_of(s), batch.slots[s].ids[i]), lookup.groups[g].keys);
    lookup.offsets[s] = batch.slots[s].offsets;
  }
}

Status fetch(EmbeddingServers& servers, const LookupPlan& plan, int64_t group, const GetOptions& options,
             Lookup& lookup) {
  GroupRows& rows = lookup.groups[static_cast<size_t>(group)];
  rows.rows.resize(rows.keys.size() * static_cast<size_t>(plan.dim));
  TESSERA_RETURN_IF_ERROR(servers.get(plan.store_group(group), rows.keys, rows.rows, options));
  if (!plan.wide) return {};
  rows.wide.resize(rows.keys.size());
  return servers.get(plan.store_group(group) + 1, rows.keys, rows.wide, options);
}

void pool(const LookupPlan& plan, const Lookup& lookup, const PooledRows& out) {
  const auto dim = static_cast<size_t>(plan.dim), rows = static_cast<size_t>(lookup.batch_rows);
  const size_t slots = plan.slots.size(), stride = static_cast<size_t>(plan.num_places()) * dim;
  const size_t sequences = rows == 0 ? 0 : out.lengths.size() / rows;
  float* place = out.pooled.data();
  float* lengths = out.lengths.data();
  for (size_t s = 0; s < slots; place += static_cast<size_t>(plan.places_of(s++)) * dim) {
    const GroupRows& group = lookup.groups[static_cast<size_t>(plan.slots[s].group)];
    if (plan.slots[s].sequence > 0)
      lay_out_sequence(lookup.positions[s], lookup.offsets[s], plan.slots[s].sequence, group.rows.data(), dim,
                       rows, place, stride, lengths++, sequences);
    else
      pool_slot(lookup.positions[s], lookup.offsets[s], plan.slots[s].pooling, group.rows.data(), dim, rows,
                place, stride);
    if (plan.wide)
      pool_slot(lookup.positions[s], lookup.offsets[s], plan.slots[s].pooling, group.wide.data(), 1, rows,
                out.wide.data() + s, slots);
  }
}

void unpool(const LookupPlan& plan, int64_t group, std::span<const float> pooled_gradient,
            std::span<const float> wide_gradient, Lookup& lookup) {
  const auto dim = static_cast<size_t>(plan.dim), rows = static_cast<size_t>(lookup.batch_rows);
  const size_t slots = plan.slots.size(), stride = static_cast<size_t>(plan.num_places()) * dim;
  auto is_meant = [group](int64_t g) { return group == kAllGroups || g == group; };
  for (int64_t g = 0; g < plan.num_groups; ++g) {
    if (!is_meant(g)) continue;
    GroupRows& sums = lookup.groups[static_cast<size_t>(g)];
    sums.gradients.assign(sums.keys.size() * dim, 0);
    if (plan.wide) sums.wide_gradients.assign(sums.keys.size(), 0);
  }
  const float* place = pooled_gradient.data();
  for (size_t s = 0; s < slots; place += static_cast<size_t>(plan.places_of(s++)) * dim) {
    if (!is_meant(plan.slots[s].group)) continue;
    GroupRows& sums = lookup.groups[static_cast<size_t>(plan.slots[s].group)];
    if (plan.slots[s].sequence > 0)
      take_back_sequence(lookup.positions[s], lookup.offsets[s], plan.slots[s].sequence, place, stride, dim,
                         rows, sums.gradients.data());
    else
      unpool_slot(lookup.positions[s], lookup.offsets[s], plan.slots[s].pooling, place, stride, dim, rows,
                  sums.gradients.data());
    if (plan.wide)
      unpool_slot(lookup.positions[s], lookup.offsets[s], plan.slots[s].pooling, wide_gradient.data() + s,
                  slots, 1, rows, sums.wide_gradients.data());
  }
}

Status update(EmbeddingServers& servers, const LookupPlan& plan, int64_t group, const GroupRows& rows,
              const StepPart& at) {
  auto put = [&](int64_t store_group, std::span<const float> gradients) {
    recsys::PutOptions options{.step = static_cast<uint64_t>(at.step),
                               .sender = sender_of(at.part, store_group, plan.store_groups()),
                               .sequence = static_cast<uint64_t>(at.step) + 1};
    return servers.put(store_group, rows.keys, gradients, options);
  };
  TESSERA_RETURN_IF_ERROR(put(plan.store_group(group), rows.gradients));
  return plan.wide ? put(plan.store_group(group) + 1, rows.wide_gradients) : Status();
}

}  // namespace tessera::recsys_train
