#include <algorithm>
#include <bit>
#include <cmath>

#include "core/hash.h"
#include "core/log.h"
#include "core/machine.h"
#include "recsys/table_visit.h"

namespace tessera::recsys {
namespace {

uint64_t hash_of(uint64_t id) {
  return mix64(id);
}

}  // namespace

Table::Table(const GroupOptions& group, int64_t num_shards)
    : group_(group),
      update_(group),
      eviction_(group, num_shards),
      shard_bits_(std::countr_zero(static_cast<uint64_t>(num_shards))) {}

namespace {

// Of all that decides what the bytes of a record mean.
uint64_t hash_of_options(const GroupOptions& group) {
  const InitOptions& init = group.init;
  std::string text = fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {}", group.name, group.dim, to_string(group.row_type),
      to_string(group.optimizer.kind), to_string(group.eviction.kind), group.optimizer.momentum != 0,
      to_string(init.kind), init.seed, init.low + init.value, init.high + init.mean, init.deviation);
  return hash64(std::as_bytes(std::span(text)));
}

}  // namespace

Result<std::unique_ptr<Table>> Table::create(const GroupOptions& group, int64_t num_shards,
                                             const SharedRows& shared, const DiskOptions& disk) {
  std::unique_ptr<Table> table(new Table(group, num_shards));
  table->shared_ = shared;
  constexpr int64_t kLeastReserve = int64_t{64} << 30;
  int64_t reserve = std::max(kLeastReserve, 2 * this_machine().memory_bytes);
  TESSERA_ASSIGN_OR_RETURN(table->space_, RowSpace::create(table->update_.layout().bytes, num_shards, reserve,
                                                           shared.path, hash_of_options(group)));
  TESSERA_ASSIGN_OR_RETURN(table->buckets_, BucketSpace::create(reserve));
  table->heads_ = std::make_unique<ShardHead[]>(static_cast<size_t>(num_shards));
  table->versions_ = std::make_unique<RowVersions[]>(static_cast<size_t>(num_shards));
  for (int64_t s = 0; s < num_shards; ++s)
    table->shards_.push_back(std::make_unique<Shard>(*table->space_, *table->buckets_, table->heads_[s],
                                                     table->versions_[s], s, group, num_shards));
  table->adopt_chunks();
  if (!disk.folder.empty() && group.eviction.budget_bytes != 0) {
    std::string path = shared.path.empty() ? "" : disk.folder + "/" + group.name;
    TESSERA_ASSIGN_OR_RETURN(table->disk_, DiskSpace::create(disk, table->update_.layout().bytes, num_shards,
                                                             path, hash_of_options(group)));
    for (int64_t s = 0; s < num_shards; ++s)
      table->shards_[static_cast<size_t>(s)]->disk = std::make_unique<DiskShard>(*table->disk_, s);
  }
  if (shared.path.empty()) TESSERA_RETURN_IF_ERROR(table->rebuild_indexes());
  return table;
}

void Table::adopt_chunks() {
  uint32_t chunks = static_cast<uint32_t>(space_->header().chunks.load());
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    size_t owner = space_->owners()[chunk];
    // A process that died between taking a chunk and signing for it leaves the chunk to nobody.
    if (owner != 0 && owner <= shards_.size()) shards_[owner - 1]->rows.adopt_chunk(chunk);
  }
}

Result<PutCount> Table::put(std::span<const uint64_t> ids, const float* gradients, const PutOptions& options,
                            uint64_t now) {
  size_t dim = static_cast<size_t>(group_.dim);
  PutCount total;
  Journal::Ticket ticket;
  if (shared_.journal != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(ticket, shared_.journal->begin(shared_.group, options.sender, options.sequence));
    total.repeated = ticket.repeated;
    if (ticket.repeated) return total;
  }
  RowStep step = update_.step_of(options);
  uint64_t done = 0;
  Status status = for_each(ids, gradients, OnDisk::bring_back, [&](Visitor& visitor) -> Status {
    if (done < ticket.skip) {
      ++done;
      return Status();
    }
    const float* gradient = gradients + visitor.position * dim;
    bool expired = eviction_.can_expire() && visitor.record != nullptr && drop_expired(visitor, now);
    if (expired || visitor.record == nullptr) {
      ++total.absent;
      ++visitor.shard->stats.absent_gradients;
    } else {
      touch(*visitor.shard, visitor.row);
      if (ticket.slot != nullptr) note_old_bytes(*ticket.slot, visitor, done);
      RowVersions::Writing writing(visitor.shard->versions, visitor.row);
      bool updated = update_.update(visitor.record, gradient, step, options.step);
      total.updated += updated ? 1 : 0;
      total.not_finite += updated ? 0 : 1;
      visitor.shard->stats.not_finite_gradients += updated ? 0 : 1;
    }
    ++done;
    if (ticket.slot != nullptr) ticket.slot->state.store(2 * done, std::memory_order_release);
    return Status();
  });
  if (ticket.slot != nullptr && status.ok()) shared_.journal->finish(ticket);
  if (ticket.slot != nullptr && !status.ok()) shared_.journal->abandon(ticket, done);
  if (!status.ok()) return status.error();
  return total;
}

void Table::note_old_bytes(WriterSlot& slot, const Visitor& visitor, uint64_t done) {
  slot.shard = static_cast<uint32_t>(shard_number(visitor.hash));
  slot.row = visitor.row;
  std::memcpy(slot.old_record(), visitor.record, static_cast<size_t>(update_.layout().bytes));
  slot.state.store(2 * done + 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_acq_rel);  // the row changes after the note, not before
}

Status Table::assign(std::span<const uint64_t> ids, const float* rows, uint64_t now) {
  Journal::Ticket ticket;
  if (shared_.journal != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(ticket, shared_.journal->begin(shared_.group, 0, 0));
  }
  Status status = for_each(ids, rows, OnDisk::bring_back, [&](Visitor& visitor) -> Status {
    if (visitor.record == nullptr) TESSERA_RETURN_IF_ERROR(make_row(visitor, now));
    touch(*visitor.shard, visitor.row);
    if (ticket.slot != nullptr) note_old_bytes(*ticket.slot, visitor, 0);
    {
      RowVersions::Writing writing(visitor.shard->versions, visitor.row);
      update_.write(visitor.record, rows + visitor.position * static_cast<size_t>(group_.dim));
    }
    if (ticket.slot != nullptr) ticket.slot->state.store(0, std::memory_order_release);
    return Status();
  });
  if (ticket.slot != nullptr) shared_.journal->finish(ticket);
  return status;
}

Status Table::overwrite(std::span<const uint64_t> ids, const std::byte* records) {
  size_t bytes = static_cast<size_t>(update_.layout().bytes);
  return for_each(ids, nullptr, OnDisk::bring_back, [&](Visitor& visitor) -> Status {
    if (visitor.record == nullptr) TESSERA_RETURN_IF_ERROR(make_row(visitor, 0));
    touch(*visitor.shard, visitor.row);
    RowVersions::Writing writing(visitor.shard->versions, visitor.row);
    std::memcpy(visitor.record, records + visitor.position * bytes, bytes);
    return Status();
  });
}

int64_t Table::erase(std::span<const uint64_t> ids, uint64_t now) {
  int64_t gone = 0;
  Status status = for_each(ids, nullptr, OnDisk::look, [&](Visitor& visitor) {
    if (visitor.on_disk != nullptr) {
      gone += eviction_.expired(visitor.on_disk, now) ? 0 : 1;
      remove_from_disk(*visitor.shard, visitor.slot, visitor.on_disk);
    } else if (visitor.record != nullptr && !drop_expired(visitor, now)) {
      remove(*visitor.shard, visitor.row);
      ++gone;
    }
    return Status();
  });
  if (!status.ok()) log(LogLevel::error, "erased {} of {} rows: {}", gone, ids.size(), status.error().message);
  return gone;
}

void Table::find(std::span<const uint64_t> ids, uint8_t* present, uint64_t now) {
  std::fill_n(present, ids.size(), uint8_t{1});  // who cannot be read is there
  Status status = for_each(ids, nullptr, OnDisk::look, [&](Visitor& visitor) {
    const std::byte* record = visitor.record != nullptr ? visitor.record : visitor.on_disk;
    present[visitor.position] = record != nullptr && !eviction_.expired(record, now) ? 1 : 0;
    return Status();
  });
  if (!status.ok()) log(LogLevel::error, "looked for {} rows: {}", ids.size(), status.error().message);
}

int64_t Table::set_scores(std::span<const uint64_t> ids, const float* scores) {
  int64_t set = 0;
  Status status = for_each(ids, nullptr, OnDisk::bring_back, [&](Visitor& visitor) -> Status {
    if (visitor.record == nullptr) return Status();
    touch(*visitor.shard, visitor.row);
    RowVersions::Writing writing(visitor.shard->versions, visitor.row);
    eviction_.set_score(visitor.record, scores[visitor.position]);
    ++set;
    return Status();
  });
  if (!status.ok()) log(LogLevel::error, "set {} of {} scores: {}", set, ids.size(), status.error().message);
  return set;
}

// ---- rows come and go ----

Error Table::no_room() const {
  return make_error(
      ErrorCode::resource_exhausted,
      "group '{}' has no room for more rows: a shard holds at most {}; use more shards than {}, or an "
      "eviction policy with a budget",
      group_.name, kNoRow, shards_.size());
}

Result<uint32_t> Table::take_row(Shard& shard) {
  if (!shard.index.has_room() && !grow(shard, shard.index.larger())) return no_room();
  uint32_t row = shard.rows.take();
  if (row == kNoRow) return no_room();
  return row;
}

Status Table::make_row(Visitor& visitor, uint64_t now) {
  Shard& shard = *visitor.shard;
  TESSERA_RETURN_IF_ERROR(make_room(shard, 1));
  TESSERA_ASSIGN_OR_RETURN(uint32_t row, take_row(shard));
  visitor.row = row;
  visitor.record = shard.rows.record(row);
  {
    RowVersions::Writing writing(shard.versions, row);
    update_.create(visitor.id, visitor.record);
    if (eviction_.tracks_visits()) eviction_.visit(visitor.record, now);
  }
  if (shard.tracks_changes) shard.rows.mark_dirty(row);
  shard.rows.set_live(row);
  shard.index.insert(index_hash(visitor.hash), Index::tag_of(visitor.hash), row);
  ++shard.stats.created;
  return {};
}

bool Table::grow(Shard& shard, uint64_t buckets) {
  if (!shard.index.restart(buckets)) return false;
  shard.rows.for_each_live([&](uint32_t row) {
    uint64_t hash = hash_of(id_of(shard.rows.record(row)));
    shard.index.insert(index_hash(hash), Index::tag_of(hash), row);
  });
  return true;
}

void Table::remove(Shard& shard, uint32_t row) {
  uint64_t id = id_of(shard.rows.record(row)), hash = hash_of(id);
  touch(shard, row);
  if (shard.tracks_changes) shard.removed.push_back(id);
  leave_memory(shard, row, hash);
}

void Table::leave_memory(Shard& shard, uint32_t row, uint64_t hash) {
  shard.rows.give_back(row);
  shard.index.remove(index_hash(hash), Index::tag_of(hash), row);
  shard.removals.fetch_add(1, std::memory_order_release);
}

Status Table::make_room(Shard& shard, uint64_t more) {
  uint64_t bound = eviction_.rows_per_shard(shard.disk ? shard.disk->bytes() : 0), rows = shard.index.entries();
  if (bound == 0 || rows == 0 || rows + more <= bound) return {};
  static thread_local std::vector<std::pair<uint32_t, uint32_t>> ranked;  // rank, row
  ranked.clear();
  shard.rows.for_each_live(
      [&](uint32_t row) { ranked.emplace_back(eviction_.rank(shard.rows.record(row), update_), row); });
  size_t leave = std::min<size_t>(ranked.size(), std::max<size_t>(rows + more - bound, ranked.size() / 16));
  std::nth_element(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(leave) - 1, ranked.end());
  if (disk_ != nullptr) {
    static thread_local std::vector<uint32_t> cold;
    cold.clear();
    for (size_t i = 0; i < leave; ++i) cold.push_back(ranked[i].second);
    return spill(shard, cold);
  }
  for (size_t i = 0; i < leave; ++i) remove(shard, ranked[i].second);
  shard.stats.evicted += static_cast<int64_t>(leave);
  return {};
}

bool Table::drop_expired(Visitor& visitor, uint64_t now) {
  if (!eviction_.expired(visitor.record, now)) return false;
  remove(*visitor.shard, visitor.row);
  ++visitor.shard->stats.expired;
  visitor.record = nullptr;
  return true;
}

int64_t Table::expire(uint64_t now) {
  if (!eviction_.can_expire()) return 0;
  int64_t gone = 0;
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    std::vector<uint32_t> old;
    shard->rows.for_each_live([&](uint32_t row) {
      if (eviction_.expired(shard->rows.record(row), now)) old.push_back(row);
    });
    for (uint32_t row : old) remove(*shard, row);
    int64_t count = static_cast<int64_t>(old.size());
    if (shard->disk) {
      auto on_disk = expire_on_disk(*shard, now);
      if (!on_disk) log(LogLevel::error, "expired rows on disk stay: {}", on_disk.error().message);
      count += on_disk.ok() ? *on_disk : 0;
    }
    shard->stats.expired += count;
    gone += count;
  }
  return gone;
}

GroupStats Table::stats() {
  GroupStats total;
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    total.rows += static_cast<int64_t>(shard->index.entries());
    total.bytes += shard->rows.bytes() + shard->index.bytes() + shard->admission.bytes();
    total.bytes += static_cast<int64_t>(shard->rows.end()) / 4;  // live and dirty bits
    if (shard->disk) {
      total.disk_rows += static_cast<int64_t>(shard->disk->index.entries());
      total.bytes += shard->disk->bytes();
    }
    total.spilled += shard->stats.spilled;
    total.returned += shard->stats.returned;
    total.created += shard->stats.created;
    total.evicted += shard->stats.evicted;
    total.refused += shard->stats.refused;
    total.expired += shard->stats.expired;
    total.absent_gradients += shard->stats.absent_gradients;
    total.not_finite_gradients += shard->stats.not_finite_gradients;
  }
  if (disk_ != nullptr) total.disk_bytes = disk_->bytes();
  return total;
}

}  // namespace tessera::recsys
