// Which ids get a row. Asked at each training get of an id without one.
//
//   probability   a hash of (id, step) decides: the same on every server and in every repetition of a run
//   counter       exact counts of ids without a row, about 60 bytes each
//   bloom         a counting Bloom filter (Fan et al. 2000) with conservative update: three counters of one
//   byte
//                 per id, counts never too low, too high for few
//
// One object per shard. Threads: one at a time.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "recsys/options.h"

namespace tessera::recsys {

class Admission {
 public:
  Admission(const AdmissionOptions& options, int64_t num_shards);
  // True when the id is to get a row now.
  bool admit(uint64_t id, uint64_t step);
  int64_t bytes() const;

 private:
  bool admit_by_count(uint64_t id);
  bool admit_by_filter(uint64_t id);

  AdmissionOptions options_;
  std::unordered_map<uint64_t, uint8_t> counts_;
  std::vector<uint8_t> filter_;
};

}  // namespace tessera::recsys
