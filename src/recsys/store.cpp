#include "recsys/store.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <unordered_map>

#include "core/nearest.h"
#include "recsys/hash.h"
#include "recsys/row_update.h"

namespace tessera::recsys {
namespace {

struct Table {
  explicit Table(const GroupOptions& options) : group(options), update(options) {}
  GroupOptions group;
  RowUpdate update;
  std::mutex mutex;
  std::unordered_map<uint64_t, std::vector<std::byte>> rows;
  GroupStats stats;

  std::byte* make(uint64_t id) {
    std::vector<std::byte>& record = rows[id];
    record.resize(static_cast<size_t>(update.layout().bytes));
    update.create(id, record.data());
    ++stats.created;
    return record.data();
  }
};

}  // namespace

class Store::Impl {
 public:
  std::vector<std::unique_ptr<Table>> tables;
  std::atomic<uint64_t> clock{0};
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::create(StoreOptions options) {
  auto impl = std::make_unique<Impl>();
  if (options.groups.empty()) return invalid("a store needs at least one group");
  for (const GroupOptions& group : options.groups) {
    TESSERA_RETURN_IF_ERROR(validate(group));
    impl->tables.push_back(std::make_unique<Table>(group));
  }
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

int64_t Store::num_groups() const {
  return static_cast<int64_t>(impl_->tables.size());
}
const GroupOptions& Store::group(int64_t group) const {
  return impl_->tables.at(static_cast<size_t>(group))->group;
}

Result<int64_t> Store::group_named(std::string_view name) const {
  std::vector<std::string> names;
  for (const auto& table : impl_->tables) names.push_back(table->group.name);
  auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return found - names.begin();
  return make_error(ErrorCode::not_found, "no group '{}' in the store{}", name, did_you_mean(name, names));
}

Status Store::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, Access access) {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  size_t dim = static_cast<size_t>(table.group.dim);
  TESSERA_REQUIRE(rows.size() == ids.size() * dim, "{} floats for {} rows of {}", rows.size(), ids.size(), dim);
  std::lock_guard lock(table.mutex);
  for (size_t i = 0; i < ids.size(); ++i) {
    auto found = table.rows.find(ids[i]);
    if (found == table.rows.end() && access == Access::read) {
      table.update.initial_values(ids[i], &rows[i * dim]);
      continue;
    }
    const std::byte* record = found != table.rows.end() ? found->second.data() : table.make(ids[i]);
    table.update.read(record, &rows[i * dim]);
  }
  return {};
}

Result<PutCount> Store::put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                            const PutOptions& options) {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  size_t dim = static_cast<size_t>(table.group.dim);
  TESSERA_REQUIRE(gradients.size() == ids.size() * dim, "{} floats for {} gradients of {}", gradients.size(),
                  ids.size(), dim);
  advance(options.step);
  std::lock_guard lock(table.mutex);
  PutCount count;
  for (size_t i = 0; i < ids.size(); ++i) {
    const float* gradient = &gradients[i * dim];
    auto found = table.rows.find(ids[i]);
    if (found == table.rows.end()) {
      ++count.absent;
    } else if (!table.update.finite(gradient)) {
      ++count.not_finite;
    } else {
      table.update.update(found->second.data(), gradient, options);
      ++count.updated;
    }
  }
  table.stats.absent_gradients += count.absent;
  table.stats.not_finite_gradients += count.not_finite;
  return count;
}

Status Store::assign(int64_t group, std::span<const uint64_t> ids, std::span<const float> rows) {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  size_t dim = static_cast<size_t>(table.group.dim);
  TESSERA_REQUIRE(rows.size() == ids.size() * dim, "{} floats for {} rows of {}", rows.size(), ids.size(), dim);
  std::lock_guard lock(table.mutex);
  for (size_t i = 0; i < ids.size(); ++i) {
    auto found = table.rows.find(ids[i]);
    table.update.write(found != table.rows.end() ? found->second.data() : table.make(ids[i]), &rows[i * dim]);
  }
  return {};
}

void Store::find(int64_t group, std::span<const uint64_t> ids, std::span<uint8_t> present) const {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  std::lock_guard lock(table.mutex);
  for (size_t i = 0; i < ids.size(); ++i) present[i] = table.rows.contains(ids[i]);
}

int64_t Store::erase(int64_t group, std::span<const uint64_t> ids) {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  std::lock_guard lock(table.mutex);
  int64_t gone = 0;
  for (uint64_t id : ids) gone += static_cast<int64_t>(table.rows.erase(id));
  return gone;
}

void Store::advance(uint64_t step) {
  uint64_t now = impl_->clock.load(std::memory_order_relaxed);
  while (step > now && !impl_->clock.compare_exchange_weak(now, step, std::memory_order_relaxed)) continue;
}

GroupStats Store::stats(int64_t group) const {
  Table& table = *impl_->tables.at(static_cast<size_t>(group));
  std::lock_guard lock(table.mutex);
  GroupStats stats = table.stats;
  stats.rows = static_cast<int64_t>(table.rows.size());
  stats.bytes = stats.rows * table.update.layout().bytes;
  return stats;
}

}  // namespace tessera::recsys
