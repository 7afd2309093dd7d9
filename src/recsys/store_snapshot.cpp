// Store::save and Store::load.
#include <chrono>
#include <random>

#include "core/clock.h"
#include "recsys/snapshot.h"
#include "recsys/store_impl.h"

namespace tessera::recsys {

Result<Store::SnapshotInfo> Store::save(const std::string& path, SnapshotKind kind,
                                        const std::function<void()>& on_cut, SnapshotChain chain) {
  std::lock_guard one_at_a_time(impl_->save_mutex);
  bool full = kind == SnapshotKind::full;
  Impl::Chain nothing;
  Impl::Chain& last = chain == SnapshotChain::none ? nothing : impl_->chains[static_cast<size_t>(chain)];
  if (!full && last.series == 0)
    return invalid("{}: a delta needs a full snapshot by this store before it, since it was opened", path);
  SnapshotHead head{.delta = !full};
  head.series = full ? (uint64_t{std::random_device{}()} << 32 | std::random_device{}()) | 1 : last.series;
  head.number = full ? 0 : last.number + 1;
  // Changes that are taken at the cut would be lost to later deltas if this one failed.
  last.series = 0;
  SnapshotInfo info{.number = head.number};
  {
    std::unique_lock no_puts(impl_->puts);
    Clock::time_point start = Clock::now();
    head.clock = impl_->now();
    for (auto& table : impl_->tables) table->cut(chain, full);
    info.cut_seconds = seconds_since(start);
  }
  if (on_cut) on_cut();
  TESSERA_ASSIGN_OR_RETURN(auto writer, SnapshotWriter::create(path, head, impl_->groups()));
  for (uint32_t group = 0; group < impl_->tables.size(); ++group) {
    Table& table = *impl_->tables[group];
    auto rows = [&](std::span<const std::byte> records) {
      uint64_t count = records.size() / static_cast<size_t>(table.layout().bytes);
      info.rows += static_cast<int64_t>(count);
      return writer->add_records(group, count, records);
    };
    auto removed = [&](std::span<const uint64_t> ids) {
      info.removed += static_cast<int64_t>(ids.size());
      return full ? Status() : writer->add_removed(group, ids);
    };
    TESSERA_RETURN_IF_ERROR(table.drain(rows, removed));
  }
  TESSERA_RETURN_IF_ERROR(writer->finish());
  info.bytes = writer->bytes();
  last = {head.series, head.number};
  return info;
}

namespace {

// The records of ids that belong to `server`.
std::vector<std::byte> mine(std::span<const std::byte> records, size_t bytes, uint32_t server,
                            uint32_t num_servers) {
  std::vector<std::byte> kept;
  for (size_t at = 0; at < records.size(); at += bytes) {
    if (server_of(id_of(&records[at]), num_servers) != server) continue;
    kept.insert(kept.end(), records.begin() + static_cast<std::ptrdiff_t>(at),
                records.begin() + static_cast<std::ptrdiff_t>(at + bytes));
  }
  return kept;
}

Status check_chain(const std::string& path, const SnapshotHead& before, const SnapshotHead& head, bool first) {
  if (first && head.delta)
    return invalid("{} is delta {} and nothing stands before it; begin with the full snapshot", path,
                   head.number);
  if (first || (head.delta && head.series == before.series && head.number == before.number + 1)) return {};
  return invalid(
      "{} does not follow the file before it: it is {} {} of series {:x}, expected delta {} of series {:x}",
      path, head.delta ? "delta" : "full snapshot", head.number, head.series, before.number + 1, before.series);
}

}  // namespace

Status Store::load(std::span<const std::string> files, uint32_t server, uint32_t num_servers) {
  TESSERA_REQUIRE(server < num_servers, "server {} of {}", server, num_servers);
  SnapshotVisitor visitor;
  visitor.records = [&](uint32_t group, std::span<const std::byte> records) {
    Table& table = *impl_->tables[group];
    if (num_servers == 1) return table.restore(records);
    return table.restore(mine(records, static_cast<size_t>(table.layout().bytes), server, num_servers));
  };
  visitor.removed = [&](uint32_t group, std::span<const uint64_t> ids) {
    impl_->tables[group]->erase(ids, 0);
    return Status();
  };
  SnapshotVisitor looking{[](uint32_t, std::span<const std::byte>) { return Status(); },
                          [](uint32_t, std::span<const uint64_t>) { return Status(); }};
  // All files are checked before the first row is taken.
  SnapshotHead before;
  for (size_t i = 0; i < files.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(files[i], impl_->groups(), looking));
    TESSERA_RETURN_IF_ERROR(check_chain(files[i], before, head, i == 0));
    before = head;
  }
  for (const std::string& file : files) {
    TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(file, impl_->groups(), visitor));
    advance(head.clock);
  }
  return {};
}

Status Store::for_each(int64_t group,
                       const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit) const {
  return impl_->table(group).for_each_record(visit);
}

}  // namespace tessera::recsys
