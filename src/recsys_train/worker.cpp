#include "recsys_train/worker.h"

#include <algorithm>

namespace tessera::recsys_train {
namespace {

uint64_t hash_of(const BatchKey& key) {
  auto split = static_cast<uint64_t>(key.split);
  return split << 62 | static_cast<uint64_t>(key.epoch & 0x3fff) << 48 | static_cast<uint64_t>(key.number);
}

}  // namespace

LocalWorker::LocalWorker(BatchLoader& loader, EmbeddingServers& servers, LookupPlan plan,
                         StalenessBounds bounds)
    : loader_(loader),
      servers_(servers),
      plan_(std::move(plan)),
      bounds_(std::move(bounds)),
      deduplicator_(plan_) {}

std::shared_ptr<LocalWorker::Entry> LocalWorker::entry_of(const BatchKey& key) {
  std::lock_guard lock(mutex_);
  auto& entry = entries_[hash_of(key)];
  if (entry) return entry;
  if (idle_.empty()) return entry = std::make_shared<Entry>();
  entry = std::move(idle_.back());
  idle_.pop_back();
  entry->loaded = entry->looked_up = false;
  return entry;
}

void LocalWorker::forget(const BatchKey& key) {
  std::lock_guard lock(mutex_);
  auto found = entries_.find(hash_of(key));
  if (found == entries_.end()) return;
  if (found->second.use_count() <= 2) idle_.push_back(std::move(found->second));  // the map and the caller
  entries_.erase(found);
}

// REQUIRES: entry.mutex is held.
Status LocalWorker::load_into(const BatchKey& key, Entry& entry) {
  if (entry.loaded) return {};
  std::lock_guard lock(loading_);
  TESSERA_RETURN_IF_ERROR(loader_.load(key, entry.batch));
  if (entry.batch.rows > 0) deduplicator_.run(entry.batch, entry.lookup);
  entry.applied.assign(static_cast<size_t>(plan_.num_groups), false);
  entry.loaded = true;
  return {};
}

Result<int64_t> LocalWorker::load(const BatchKey& key) {
  auto entry = entry_of(key);
  std::lock_guard lock(entry->mutex);
  if (Status status = load_into(key, *entry); !status.ok()) return forget(key), status.error();
  const int64_t rows = entry->batch.rows;
  if (rows == 0) forget(key);
  return rows;
}

Status LocalWorker::look_up(const BatchKey& key, DenseInput& out) {
  auto entry = entry_of(key);
  std::lock_guard lock(entry->mutex);
  TESSERA_RETURN_IF_ERROR(load_into(key, *entry));
  const bool training = key.split == Split::train;
  const int64_t rows = out.rows = entry->batch.rows;
  for (int64_t group = 0; rows > 0 && !entry->looked_up && group < plan_.num_groups; ++group) {
    int64_t bound = training ? bounds_.at(group, key.step) : 0;
    GetOptions options{.access = training ? recsys::Access::train : recsys::Access::read,
                       .needs_step = std::max<int64_t>(0, key.step - bound)};
    TESSERA_RETURN_IF_ERROR(fetch(servers_, plan_, group, options, entry->lookup));
  }
  entry->looked_up = true;
  out.labels = entry->batch.labels;
  out.numeric = entry->batch.numeric;
  const auto count = static_cast<size_t>(rows);
  out.pooled.resize(count * static_cast<size_t>(plan_.num_places() * plan_.dim));
  out.wide.resize(plan_.wide ? count * plan_.slots.size() : 0);
  out.lengths.resize(count * plan_.sequences().size());
  if (rows > 0) pool(plan_, entry->lookup, {out.pooled, out.wide, out.lengths});
  if (!training || rows == 0) forget(key);
  return {};
}

Status LocalWorker::give_back(const BatchKey& key, int64_t group, std::span<const float> pooled,
                              std::span<const float> wide) {
  auto entry = entry_of(key);
  std::lock_guard lock(entry->mutex);
  TESSERA_RETURN_IF_ERROR(load_into(key, *entry));
  const auto count = static_cast<size_t>(entry->batch.rows);
  if (pooled.size() != count * static_cast<size_t>(plan_.num_places() * plan_.dim) ||
      wide.size() != (plan_.wide ? count * plan_.slots.size() : 0))
    return make_error(ErrorCode::data_loss, "gradients of {} and {} floats for batch {} of {} rows",
                      pooled.size(), wide.size(), key.number, entry->batch.rows);
  unpool(plan_, group, pooled, wide, entry->lookup);
  for (int64_t g = 0; g < plan_.num_groups; ++g) {
    if (group != kAllGroups && g != group) continue;
    TESSERA_RETURN_IF_ERROR(update(servers_, plan_, g, entry->lookup.groups[static_cast<size_t>(g)],
                                   {.part = key.part, .step = key.step}));
    entry->applied[static_cast<size_t>(g)] = true;
  }
  if (std::find(entry->applied.begin(), entry->applied.end(), false) == entry->applied.end()) forget(key);
  return {};
}

Result<recsys::GroupStats> LocalWorker::stats(int64_t group) {
  return servers_.stats(plan_.store_group(group));
}

Result<uint64_t> LocalWorker::digest(int64_t step) {
  uint64_t sum = 0;
  for (int64_t group = 0; group < plan_.store_groups(); ++group) {
    TESSERA_ASSIGN_OR_RETURN(uint64_t part, servers_.digest(group, step));
    sum += part;
  }
  return sum;
}

}  // namespace tessera::recsys_train
