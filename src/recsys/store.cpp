#include "recsys/store.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "core/nearest.h"
#include "recsys/table.h"

namespace tessera::recsys {

class Store::Impl {
 public:
  Table& table(int64_t group) const {
    TESSERA_REQUIRE(group >= 0 && group < static_cast<int64_t>(tables.size()), "group {} of {}", group,
                    tables.size());
    return *tables[static_cast<size_t>(group)];
  }
  // The table, after a check that `floats` are one row per id.
  Table& table_for(int64_t group, size_t ids, size_t floats) const {
    Table& chosen = table(group);
    size_t dim = static_cast<size_t>(chosen.group().dim);
    TESSERA_REQUIRE(floats == ids * dim, "{} floats for {} rows of {}", floats, ids, dim);
    return chosen;
  }
  uint64_t now() const { return clock.load(std::memory_order_relaxed); }

  std::vector<std::unique_ptr<Table>> tables;
  std::atomic<uint64_t> clock{0};
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::create(StoreOptions options) {
  constexpr int64_t kMostShards = 1 << 14;
  if (options.groups.empty()) return invalid("a store needs at least one group");
  if (options.num_shards < 1 || options.num_shards > kMostShards ||
      !std::has_single_bit(static_cast<uint64_t>(options.num_shards)))
    return invalid("{} shards: expected a power of two from 1 to {}", options.num_shards, kMostShards);
  auto impl = std::make_unique<Impl>();
  for (const GroupOptions& group : options.groups) {
    TESSERA_RETURN_IF_ERROR(validate(group));
    for (const auto& other : impl->tables)
      if (other->group().name == group.name) return invalid("two groups are named '{}'", group.name);
    TESSERA_ASSIGN_OR_RETURN(auto table, Table::create(group, options.num_shards));
    impl->tables.push_back(std::move(table));
  }
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

int64_t Store::num_groups() const {
  return static_cast<int64_t>(impl_->tables.size());
}
const GroupOptions& Store::group(int64_t group) const {
  return impl_->table(group).group();
}

Result<int64_t> Store::group_named(std::string_view name) const {
  std::vector<std::string> names;
  for (const auto& table : impl_->tables) names.push_back(table->group().name);
  auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return found - names.begin();
  return make_error(ErrorCode::not_found, "no group '{}' in the store{}", name, did_you_mean(name, names));
}

Status Store::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, Access access) {
  return impl_->table_for(group, ids.size(), rows.size()).get(ids, rows.data(), access, impl_->now());
}

Result<PutCount> Store::put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                            const PutOptions& options) {
  Table& table = impl_->table_for(group, ids.size(), gradients.size());
  advance(options.step);
  return table.put(ids, gradients.data(), options, impl_->now());
}

Status Store::assign(int64_t group, std::span<const uint64_t> ids, std::span<const float> rows) {
  return impl_->table_for(group, ids.size(), rows.size()).assign(ids, rows.data(), impl_->now());
}

int64_t Store::erase(int64_t group, std::span<const uint64_t> ids) {
  return impl_->table(group).erase(ids, impl_->now());
}

void Store::find(int64_t group, std::span<const uint64_t> ids, std::span<uint8_t> present) const {
  TESSERA_REQUIRE(ids.size() == present.size(), "{} ids, {} answers", ids.size(), present.size());
  impl_->table(group).find(ids, present.data(), impl_->now());
}

int64_t Store::set_scores(int64_t group, std::span<const uint64_t> ids, std::span<const float> scores) {
  TESSERA_REQUIRE(ids.size() == scores.size(), "{} ids, {} scores", ids.size(), scores.size());
  TESSERA_REQUIRE(impl_->table(group).group().eviction.kind == EvictionOptions::Kind::score,
                  "group {} has no scores", group);
  return impl_->table(group).set_scores(ids, scores.data());
}

int64_t Store::expire(int64_t group) {
  return impl_->table(group).expire(impl_->now());
}

void Store::advance(uint64_t step) {
  uint64_t now = impl_->now();
  while (step > now && !impl_->clock.compare_exchange_weak(now, step, std::memory_order_relaxed)) continue;
}

GroupStats Store::stats(int64_t group) const {
  return impl_->table(group).stats();
}

}  // namespace tessera::recsys
