// A read-only copy of rows that follows the snapshots of the stores that train them: a full snapshot, then
// deltas, applied while gets go on. It keeps values only: optimizer states and words of policies stay behind.
//
//   auto replica = Replica::create(groups, 2);      // as the trained stores were made, two of them
//   (*replica)->apply(0, "rows-0-17.delta");        // the next file of store 0
//   (*replica)->get(0, ids, rows);
//
// An id without a row reads as in the trained store under Access::read. While a file is being applied a get may
// find rows of before and after it, each row whole.
// Threads: gets any; apply one at a time, beside them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "recsys/snapshot.h"
#include "recsys/store.h"

namespace tessera::recsys {

class Table;

class Replica {
 public:
  // `num_sources`: stores that share the ids.
  static Result<std::unique_ptr<Replica>> create(const std::vector<GroupOptions>& groups,
                                                 int64_t num_sources = 1);
  ~Replica();

  // As Store::get under Access::read. REQUIRES: rows.size() == ids.size() * dim.
  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows) const;
  // A full snapshot is taken once, as the first of its source. A file that is damaged, or does not follow the
  // one before, is refused before a row of it is taken.
  // Errors: those of read_snapshot(); invalid_argument: not the next of its chain.
  Status apply(int64_t source, const std::string& file);

  const GroupOptions& group(int64_t group) const;
  int64_t num_groups() const { return static_cast<int64_t>(tables_.size()); }
  int64_t num_sources() const { return static_cast<int64_t>(heads_.size()); }
  GroupStats stats(int64_t group) const;

 private:
  Replica(std::vector<GroupOptions> trained, int64_t num_sources);
  Table& table(int64_t group) const;

  std::vector<std::unique_ptr<Table>> tables_;
  std::vector<GroupOptions> trained_;
  std::vector<SnapshotHead> heads_;  // last file of each source; series 0: none
};

// The group as a replica keeps it: the same rows without what only training needs.
GroupOptions values_only(GroupOptions group);

}  // namespace tessera::recsys
