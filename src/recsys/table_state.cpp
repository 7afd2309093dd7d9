// What a table does around requests: snapshots while others write, and its return after a process death.
#include <algorithm>
#include <cmath>
#include <thread>

#include "recsys/table.h"

namespace tessera::recsys {
namespace {

constexpr uint32_t kRowsPerLock = 2048;  // of a snapshot: others wait for at most that many copies

}  // namespace

// ---- snapshots ----

namespace {

// The rows (in memory or on disk) that a snapshot has to write.
template <class Rows>
void cut_rows(Rows& rows, OwedRows& owed, SnapshotChain chain, bool full, std::vector<uint64_t>& pending) {
  pending.resize((rows.end() + 63) / 64);
  for (size_t word = 0; word < pending.size(); ++word) {
    uint64_t changed = owed.cut(chain, word, rows.take_changes(word, false));
    pending[word] = rows.take_changes(word, true) & (full ? ~uint64_t{0} : changed);
  }
  owed.follow(chain);
}

}  // namespace

void Table::cut(SnapshotChain chain, bool full) {
  tracks_changes_.store(true, std::memory_order_relaxed);
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    shard->removed_before_cut = std::exchange(shard->removed, {});
    shard->owed.cut(chain, shard->removed_before_cut);
    cut_rows(shard->rows, shard->owed, chain, full, shard->pending);
    shard->tracks_changes = true;
    shard->saved.clear();  // of a snapshot that failed
    if (shard->disk == nullptr) continue;
    cut_rows(shard->disk->rows, shard->disk->owed, chain, full, shard->disk->pending);
  }
}

void Table::forget(SnapshotChain chain) {
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    shard->owed.forget(chain);
    if (shard->disk) shard->disk->owed.forget(chain);
  }
}

void Table::save_for_snapshot(Shard& shard, uint32_t row) {
  const std::byte* record = shard.rows.record(row);
  shard.saved.insert(shard.saved.end(), record, record + update_.layout().bytes);
  shard.pending[row / 64] &= ~(uint64_t{1} << row % 64);
}

Status Table::drain(const WriteRows& rows, const WriteIds& removed) {
  for (auto& shard : shards_) {
    TESSERA_RETURN_IF_ERROR(drain_shard(*shard, rows, removed));
    if (shard->disk) TESSERA_RETURN_IF_ERROR(drain_disk(*shard, rows));
  }
  return {};
}

Status Table::drain_shard(Shard& shard, const WriteRows& rows, const WriteIds& removed) {
  std::vector<std::byte> records;
  if (!shard.removed_before_cut.empty()) TESSERA_RETURN_IF_ERROR(removed(shard.removed_before_cut));
  shard.removed_before_cut = {};
  for (uint32_t row = 0;; row += kRowsPerLock) {
    {
      std::lock_guard lock(shard.mutex);
      uint32_t end = static_cast<uint32_t>(std::min<size_t>(row + kRowsPerLock, shard.pending.size() * 64));
      for (uint32_t word = row / 64; word * 64 < end; ++word)
        for (; shard.pending[word] != 0; shard.pending[word] &= shard.pending[word] - 1) {
          uint32_t at = word * 64 + static_cast<uint32_t>(__builtin_ctzll(shard.pending[word]));
          const std::byte* record = shard.rows.record(at);
          records.insert(records.end(), record, record + update_.layout().bytes);
        }
      records.insert(records.end(), shard.saved.begin(), shard.saved.end());
      shard.saved.clear();
      if (end == shard.pending.size() * 64) shard.pending = {};
    }
    if (!records.empty()) TESSERA_RETURN_IF_ERROR(rows(records));
    records.clear();
    if (shard.pending.empty()) break;
  }
  return {};
}

Status Table::restore(std::span<const std::byte> records) {
  size_t bytes = static_cast<size_t>(update_.layout().bytes);
  std::vector<uint64_t> ids(records.size() / bytes);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = id_of(&records[i * bytes]);
  return overwrite(ids, records.data());
}

Status Table::for_each_record(
    const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit) {
  size_t bytes = static_cast<size_t>(update_.layout().bytes);
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    shard->rows.for_each_live([&](uint32_t row) {
      const std::byte* record = shard->rows.record(row);
      visit(id_of(record), {record, bytes});
    });
    if (shard->disk == nullptr) continue;
    for (size_t segment = 0; segment < shard->disk->rows.num_segments(); ++segment)
      TESSERA_RETURN_IF_ERROR(shard->disk->rows.for_each_in(
          segment, [](uint32_t) { return true; },
          [&](uint32_t, const std::byte* record) {
            visit(id_of(record), {record, bytes});
          }));
  }
  return {};
}

// ---- after a process death ----

void Table::undo(const WriterSlot& slot) {
  if (slot.shard >= shards_.size() || slot.row >= shards_[slot.shard]->rows.end()) return;
  std::memcpy(shards_[slot.shard]->rows.record(slot.row), slot.old_record(),
              static_cast<size_t>(update_.layout().bytes));
}

Status Table::rebuild_indexes() {
  uint64_t expected = static_cast<uint64_t>(group_.expected_rows) / shards_.size();
  // Shards differ by chance.
  expected += static_cast<uint64_t>(3 * std::sqrt(static_cast<double>(expected)));
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  Status status;
  auto work = [&] {
    for (size_t s = next++; s < shards_.size(); s = next++) {
      Shard& shard = *shards_[s];
      uint64_t live = 0;
      shard.rows.for_each_live([&](uint32_t) { ++live; });
      if (!grow(shard, Index::buckets_for(std::max(live, expected)))) failed = true;
      if (failed || shard.disk == nullptr) continue;
      Status rebuilt = rebuild_disk_index(shard);
      std::lock_guard lock(mutex);
      if (!rebuilt.ok()) status = std::move(rebuilt);
    }
  };
  std::vector<std::thread> crew;
  size_t helpers =
      space_->header().chunks.load() < 256 ? 0 : std::min(7u, std::thread::hardware_concurrency() - 1);
  for (size_t t = 0; t < helpers; ++t) crew.emplace_back(work);
  work();
  for (std::thread& thread : crew) thread.join();
  if (!failed) return status;
  return make_error(ErrorCode::resource_exhausted, "group '{}': no address space for the index", group_.name);
}

}  // namespace tessera::recsys
