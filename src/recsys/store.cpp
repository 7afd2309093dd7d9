#include "recsys/store.h"

#include <algorithm>
#include <bit>

#include "core/nearest.h"
#include "recsys/store_impl.h"

namespace tessera::recsys {

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::create(StoreOptions options) {
  constexpr int64_t kMostShards = 1 << 14;
  if (options.groups.empty()) return invalid("a store needs at least one group");
  if (options.num_shards < 1 || options.num_shards > kMostShards ||
      !std::has_single_bit(static_cast<uint64_t>(options.num_shards)))
    return invalid("{} shards: expected a power of two from 1 to {}", options.num_shards, kMostShards);
  if (!options.memory_files.empty() && options.memory_files.size() != options.groups.size() + 1)
    return invalid("{} memory files for {} groups; expected one per group and one for the journal",
                   options.memory_files.size(), options.groups.size());
  int64_t longest = 0;
  for (const GroupOptions& group : options.groups) {
    TESSERA_RETURN_IF_ERROR(validate(group));
    auto same_name = [&](const GroupOptions& other) { return other.name == group.name; };
    if (std::count_if(options.groups.begin(), options.groups.end(), same_name) > 1)
      return invalid("two groups are named '{}'", group.name);
    longest = std::max(longest, RecordLayout(group).bytes);
  }
  auto impl = std::make_unique<Impl>();
  bool shared = !options.memory_files.empty();
  if (shared) {
    TESSERA_ASSIGN_OR_RETURN(impl->journal, Journal::open(options.memory_files.back(), longest));
  }
  for (size_t g = 0; g < options.groups.size(); ++g) {
    SharedRows rows;
    if (shared) rows = {options.memory_files[g], impl->journal.get(), static_cast<uint32_t>(g)};
    TESSERA_ASSIGN_OR_RETURN(auto table,
                             Table::create(options.groups[g], options.num_shards, rows, options.disk));
    impl->tables.push_back(std::move(table));
  }
  if (shared) TESSERA_RETURN_IF_ERROR(recover(*impl));
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

// Rows whose update was cut short get their old bytes back before anybody can find them.
Status Store::recover(Impl& impl) {
  impl.journal->recover([&](const WriterSlot& slot) {
    if (slot.group < impl.tables.size()) impl.tables[slot.group]->undo(slot);
  });
  for (auto& table : impl.tables) TESSERA_RETURN_IF_ERROR(table->rebuild_indexes());
  return {};
}

std::vector<std::string> memory_files_in(const std::string& folder, const std::vector<GroupOptions>& groups) {
  std::vector<std::string> files;
  for (const GroupOptions& group : groups) files.push_back(folder + "/" + group.name + ".rows");
  files.push_back(folder + "/journal");
  return files;
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
  std::shared_lock between_snapshots(impl_->puts);
  return table.put(ids, gradients.data(), options, impl_->now());
}

uint64_t Store::applied(uint64_t sender) const {
  return impl_->journal ? impl_->journal->applied(sender) : 0;
}

Status Store::assign(int64_t group, std::span<const uint64_t> ids, std::span<const float> rows) {
  std::shared_lock between_snapshots(impl_->puts);
  return impl_->table_for(group, ids.size(), rows.size()).assign(ids, rows.data(), impl_->now());
}

int64_t Store::erase(int64_t group, std::span<const uint64_t> ids) {
  std::shared_lock between_snapshots(impl_->puts);
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
  while (step > now && !impl_->clock().compare_exchange_weak(now, step, std::memory_order_relaxed)) continue;
}

GroupStats Store::stats(int64_t group) const {
  return impl_->table(group).stats();
}

}  // namespace tessera::recsys
