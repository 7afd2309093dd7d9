#include "recsys/replica.h"

#include "recsys/table.h"

namespace tessera::recsys {
namespace {

// Records without their policy words and optimizer state.
void keep_values(std::span<const std::byte> records, const RecordLayout& from, const RecordLayout& to,
                 std::vector<std::byte>& kept) {
  const auto size = static_cast<size_t>(from.bytes), kept_size = static_cast<size_t>(to.bytes);
  const auto values = static_cast<size_t>(from.state_offset - from.values_offset);
  kept.assign(records.size() / size * kept_size, std::byte{0});
  for (size_t at = 0, out = 0; at < records.size(); at += size, out += kept_size) {
    std::memcpy(&kept[out], &records[at], sizeof(uint64_t));
    std::memcpy(&kept[out + static_cast<size_t>(to.values_offset)],
                &records[at + static_cast<size_t>(from.values_offset)], values);
  }
}

Status check_next(const std::string& path, const SnapshotHead& before, const SnapshotHead& head) {
  if (!head.delta && before.series == 0) return {};
  if (head.delta && head.series == before.series && head.number == before.number + 1) return {};
  if (before.series == 0)
    return invalid("{} is delta {} and nothing stands before it; begin with the full snapshot", path,
                   head.number);
  return invalid(
      "{} does not follow the file before it: it is {} {} of series {:x}, expected delta {} of series {:x}",
      path, head.delta ? "delta" : "full snapshot", head.number, head.series, before.number + 1, before.series);
}

}  // namespace

GroupOptions values_only(GroupOptions group) {
  group.optimizer = {.kind = OptimizerOptions::Kind::sgd};
  group.eviction = {};
  return group;
}

Replica::Replica(std::vector<GroupOptions> trained, int64_t num_sources)
    : trained_(std::move(trained)), heads_(static_cast<size_t>(num_sources)) {}
Replica::~Replica() = default;

Result<std::unique_ptr<Replica>> Replica::create(const std::vector<GroupOptions>& groups, int64_t num_sources) {
  constexpr int64_t kShards = 64;
  if (groups.empty() || num_sources < 1)
    return invalid("a replica of {} groups of {} stores: expected at least 1", groups.size(), num_sources);
  std::unique_ptr<Replica> replica(new Replica(groups, num_sources));
  for (const GroupOptions& group : groups) {
    GroupOptions kept = values_only(group);
    TESSERA_RETURN_IF_ERROR(validate(kept));
    TESSERA_ASSIGN_OR_RETURN(auto table, Table::create(kept, kShards));
    replica->tables_.push_back(std::move(table));
  }
  return replica;
}

Table& Replica::table(int64_t group) const {
  TESSERA_REQUIRE(group >= 0 && group < num_groups(), "group {} of {}", group, num_groups());
  return *tables_[static_cast<size_t>(group)];
}
const GroupOptions& Replica::group(int64_t group) const {
  return table(group).group();
}
GroupStats Replica::stats(int64_t group) const {
  return table(group).stats();
}

Status Replica::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows) const {
  Table& from = table(group);
  TESSERA_REQUIRE(rows.size() == ids.size() * static_cast<size_t>(from.group().dim),
                  "{} floats for {} rows of {}", rows.size(), ids.size(), from.group().dim);
  return from.get(ids, rows.data(), Access::read, 0);
}

Status Replica::apply(int64_t source, const std::string& file) {
  TESSERA_REQUIRE(source >= 0 && source < static_cast<int64_t>(heads_.size()), "source {} of {}", source,
                  heads_.size());
  SnapshotVisitor looking{[](uint32_t, std::span<const std::byte>) { return Status(); },
                          [](uint32_t, std::span<const uint64_t>) { return Status(); }};
  TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_snapshot(file, trained_, looking));
  SnapshotHead& before = heads_[static_cast<size_t>(source)];
  TESSERA_RETURN_IF_ERROR(check_next(file, before, head));
  std::vector<std::byte> values;
  SnapshotVisitor taking;
  taking.records = [&](uint32_t group, std::span<const std::byte> records) {
    keep_values(records, RecordLayout(trained_[group]), tables_[group]->layout(), values);
    return tables_[group]->restore(values);
  };
  taking.removed = [&](uint32_t group, std::span<const uint64_t> ids) {
    tables_[group]->erase(ids, 0);
    return Status();
  };
  TESSERA_ASSIGN_OR_RETURN(before, read_snapshot(file, trained_, taking));
  return {};
}

}  // namespace tessera::recsys
