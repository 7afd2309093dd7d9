// Store::save and Store::load.
#include <chrono>
#include <random>

#include "core/clock.h"
#include "recsys/snapshot.h"
#include "recsys/store_impl.h"

namespace tessera::recsys {

Result<Store::SnapshotInfo> Store::save(const std::string& path, SnapshotKind kind,
                                        const std::function<void()>& on_cut, SnapshotChain chain) {
  return save_to(
      std::span(&path, 1), [](uint64_t) { return size_t{0}; }, kind, on_cut, chain);
}

Result<Store::SnapshotInfo> Store::save_parts(std::span<const std::string> paths, const PartOf& part_of,
                                              SnapshotKind kind) {
  return save_to(paths, part_of, kind, {}, SnapshotChain::moves);
}

namespace {

using Writers = std::vector<std::unique_ptr<SnapshotWriter>>;

Result<Writers> open_writers(std::span<const std::string> paths, const SnapshotHead& head,
                             const std::vector<GroupOptions>& groups) {
  Writers writers;
  for (const std::string& path : paths) {
    TESSERA_ASSIGN_OR_RETURN(auto writer, SnapshotWriter::create(path, head, groups));
    writers.push_back(std::move(writer));
  }
  return writers;
}

// Records by the part they belong to; those of no part are left out.
std::vector<std::vector<std::byte>> split_records(std::span<const std::byte> records, size_t bytes,
                                                  const Store::PartOf& part_of, size_t parts) {
  std::vector<std::vector<std::byte>> split(parts);
  for (size_t at = 0; at < records.size(); at += bytes) {
    const size_t part = part_of(id_of(&records[at]));
    if (part >= parts) continue;
    auto record = records.subspan(at, bytes);
    split[part].insert(split[part].end(), record.begin(), record.end());
  }
  return split;
}

std::vector<std::vector<uint64_t>> split_ids(std::span<const uint64_t> ids, const Store::PartOf& part_of,
                                             size_t parts) {
  std::vector<std::vector<uint64_t>> split(parts);
  for (uint64_t id : ids)
    if (const size_t part = part_of(id); part < parts) split[part].push_back(id);
  return split;
}

Status add_records(SnapshotWriter& writer, uint32_t group, std::span<const std::byte> records, size_t bytes,
                   Store::SnapshotInfo& info) {
  const uint64_t count = records.size() / bytes;
  info.rows += static_cast<int64_t>(count);
  return count == 0 ? Status() : writer.add_records(group, count, records);
}

Status add_removed(SnapshotWriter& writer, uint32_t group, std::span<const uint64_t> ids,
                   Store::SnapshotInfo& info) {
  info.removed += static_cast<int64_t>(ids.size());
  return ids.empty() ? Status() : writer.add_removed(group, ids);
}

}  // namespace

Result<Store::SnapshotInfo> Store::save_to(std::span<const std::string> paths, const PartOf& part_of,
                                           SnapshotKind kind, const std::function<void()>& on_cut,
                                           SnapshotChain chain) {
  TESSERA_REQUIRE(!paths.empty(), "a snapshot into no file");
  std::lock_guard one_at_a_time(impl_->save_mutex);
  bool full = kind == SnapshotKind::full;
  Impl::Chain nothing;
  Impl::Chain& last = chain == SnapshotChain::none ? nothing : impl_->chains[static_cast<size_t>(chain)];
  if (!full && last.series == 0)
    return invalid("{}: a delta needs a full snapshot by this store before it, since it was opened", paths[0]);
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
  TESSERA_ASSIGN_OR_RETURN(Writers writers, open_writers(paths, head, impl_->groups()));
  for (uint32_t group = 0; group < impl_->tables.size(); ++group) {
    Table& table = *impl_->tables[group];
    const auto bytes = static_cast<size_t>(table.layout().bytes);
    auto rows = [&](std::span<const std::byte> records) -> Status {
      if (writers.size() == 1 && chain != SnapshotChain::moves)
        return add_records(*writers[0], group, records, bytes, info);
      const auto split = split_records(records, bytes, part_of, writers.size());
      for (size_t part = 0; part < writers.size(); ++part)
        TESSERA_RETURN_IF_ERROR(add_records(*writers[part], group, split[part], bytes, info));
      return {};
    };
    auto removed = [&](std::span<const uint64_t> ids) -> Status {
      if (full) return info.removed += static_cast<int64_t>(ids.size()), Status();
      const auto split = split_ids(ids, part_of, writers.size());
      for (size_t part = 0; part < writers.size(); ++part)
        TESSERA_RETURN_IF_ERROR(add_removed(*writers[part], group, split[part], info));
      return {};
    };
    TESSERA_RETURN_IF_ERROR(table.drain(rows, removed));
  }
  for (const auto& writer : writers) {
    TESSERA_RETURN_IF_ERROR(writer->finish());
    info.bytes += writer->bytes();
  }
  last = {head.series, head.number};
  return info;
}

namespace {

const SnapshotVisitor kLooking{[](uint32_t, std::span<const std::byte>) { return Status(); },
                               [](uint32_t, std::span<const uint64_t>) { return Status(); }};

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
    auto is_mine = [&map = slot_map(num_servers), server](uint64_t id) {
      return map.server_of(id) == server ? size_t{0} : size_t{1};
    };
    return table.restore(split_records(records, static_cast<size_t>(table.layout().bytes), is_mine, 1)[0]);
  };
  visitor.removed = [&](uint32_t group, std::span<const uint64_t> ids) {
    impl_->tables[group]->erase(ids, 0);
    return Status();
  };
  // All files are checked before the first row is taken.
  SnapshotHead before;
  for (size_t i = 0; i < files.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(files[i], impl_->groups(), kLooking));
    TESSERA_RETURN_IF_ERROR(check_chain(files[i], before, head, i == 0));
    before = head;
  }
  for (const std::string& file : files) {
    TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(file, impl_->groups(), visitor));
    advance(head.clock);
  }
  return {};
}

Status Store::apply(const std::string& file, SnapshotHead& before) {
  TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(file, impl_->groups(), kLooking));
  TESSERA_RETURN_IF_ERROR(check_chain(file, before, head, before.series == 0));
  SnapshotVisitor taking;
  taking.records = [this](uint32_t group, std::span<const std::byte> records) {
    std::shared_lock between_snapshots(impl_->puts);
    return impl_->tables[group]->restore(records);
  };
  taking.removed = [this](uint32_t group, std::span<const uint64_t> ids) {
    erase(group, ids);
    return Status();
  };
  TESSERA_ASSIGN_OR_RETURN(before, read_snapshot(file, impl_->groups(), taking));
  advance(before.clock);
  return {};
}

Result<int64_t> Store::keep_only(const std::function<bool(uint64_t id)>& keeps) {
  constexpr size_t kAtOnce = 4096;
  int64_t gone = 0;
  for (int64_t group = 0; group < num_groups(); ++group) {
    std::vector<uint64_t> others;
    TESSERA_RETURN_IF_ERROR(impl_->table(group).for_each_record([&](uint64_t id, std::span<const std::byte>) {
      if (!keeps(id)) others.push_back(id);
    }));
    for (std::span<const uint64_t> rest = others; !rest.empty();) {
      auto some = rest.first(std::min(kAtOnce, rest.size()));
      gone += erase(group, some);
      rest = rest.subspan(some.size());
    }
  }
  return gone;
}

void Store::forget(SnapshotChain chain) {
  std::lock_guard one_at_a_time(impl_->save_mutex);
  impl_->chains[static_cast<size_t>(chain)] = {};
  for (auto& table : impl_->tables) table->forget(chain);
}

Status Store::for_each(int64_t group,
                       const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit) const {
  return impl_->table(group).for_each_record(visit);
}

}  // namespace tessera::recsys
