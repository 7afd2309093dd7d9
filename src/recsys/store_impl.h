// What a Store holds; for the files that implement it.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <shared_mutex>

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
  uint64_t now() const { return clock().load(std::memory_order_relaxed); }
  std::atomic<uint64_t>& clock() const { return journal ? journal->clock() : own_clock; }
  std::vector<GroupOptions> groups() const {
    std::vector<GroupOptions> all;
    for (const auto& table : tables) all.push_back(table->group());
    return all;
  }

  std::unique_ptr<Journal> journal;  // of shared rows
  std::vector<std::unique_ptr<Table>> tables;
  mutable std::atomic<uint64_t> own_clock{0};

  std::shared_mutex puts;  // shared by every put, so that a snapshot cuts between them
  std::mutex save_mutex;
  struct Chain {
    uint64_t series = 0, number = 0;  // of its last snapshot; series 0: none to build on
  };
  std::array<Chain, kSnapshotChains> chains;
};

}  // namespace tessera::recsys
